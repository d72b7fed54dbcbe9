"""What a node shows of a training while it runs: a line of text, a bar, moving samples."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import comfy.utils
import folder_paths
from comfy_execution.utils import get_executing_context
from PIL import Image, ImageSequence
from server import PromptServer
from torch import Tensor

from ....files.video_files import as_picture, write_picture, write_video
from ....files.whole import telling_what_fails
from ....training.exam import Marks
from ....training.run_folder import Progress
from ..notes import send_text
from ..pictures import as_image

_MOVES = ".webp"
_AVERAGED = 20
"""Steps that the speed is taken from."""


class NodeDisplay:
    """The node that is running now; outside of a server nothing is shown."""

    def __init__(self, steps: int, entries: int, used_memory: Callable[[], str], estimate: str) -> None:
        """`estimate` is shown until the first step is done."""
        self._steps, self._entries, self._used_memory = steps, entries, used_memory
        self._estimate = estimate
        self._bar = comfy.utils.ProgressBar(steps)
        self._encoded = 0
        self._times: deque[float] = deque(maxlen=_AVERAGED)
        self._marks: list[str] = []

    def entry(self) -> None:
        """One more entry of the pool is encoded."""
        self._encoded += 1
        self.say(f"{self._estimate} · encoding clips: {self._encoded} of {self._entries}")

    def step(self, progress: Progress) -> None:
        """A step is done."""
        self._times.append(time.monotonic())
        parts = [f"Step {progress.step} of {self._steps}", f"loss {progress.loss:.4f}", *self._marks]
        if gaps := len(self._times) - 1:
            speed = (self._times[-1] - self._times[0]) / gaps
            parts += [
                f"{short_time(speed)} a step",
                f"{long_time(speed * (self._steps - progress.step))} left",
            ]
        self.say(" · ".join([*parts, self._used_memory()]))
        self._bar.update_absolute(progress.step, self._steps)

    def marks(self, marks: Marks) -> None:
        """Show the exam's errors from now on."""
        self._marks = [f"exam {marks.kept_aside:.4f} (of what it learns from {marks.learned_from:.4f})"]

    def say(self, text: str) -> None:
        """Show a text on the node."""
        context = get_executing_context()
        if context is not None:
            send_text(text, context.node_id)

    def show(self, output: dict) -> None:
        """Show pictures on the node as its result would be shown, though it still runs."""
        context, server = get_executing_context(), getattr(PromptServer, "instance", None)
        if context is not None and server is not None:
            message = {
                "node": context.node_id,
                "display_node": context.node_id,
                "prompt_id": context.prompt_id,
                "output": output,
            }
            server.send_sync("executed", message, server.client_id)


def short_time(seconds: float) -> str:
    """A step's time, in words."""
    return f"{seconds:.{0 if seconds >= 10 else 2}f} s"


def long_time(seconds: float) -> str:
    """A training's time, in words."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def sample_folder(run_name: str) -> Path:
    """Where a run's samples lie."""
    return Path(folder_paths.get_output_directory()) / "flash" / run_name


def write_sample(run_name: str, step: int, frames: Iterable[Tensor], *, fps: int = 8) -> Path:
    """Write a sample as an animated picture, which moves on a node."""
    path = _sample_path(run_name, step, _MOVES)
    write_video(path, frames, fps=fps)
    return path


def write_sheet(run_name: str, step: int, sheet_HWC: Tensor) -> Path:
    """Write a sample as one picture."""
    path = _sample_path(run_name, step, ".png")
    write_picture(path, as_picture(sheet_HWC))
    return path


def _sample_path(run_name: str, step: int, suffix: str) -> Path:
    folder = sample_folder(run_name)
    with telling_what_fails(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / f"sample-{step:06d}{suffix}"


def newest_sample(run_name: str) -> Path | None:
    """The run's latest sample, if there is one."""
    return max(sample_folder(run_name).glob("sample-*"), default=None)


def read_frames(path: Path) -> Tensor:
    """The pictures (F, H, W, 3) in [0, 1] of a sample."""
    with Image.open(path) as file:
        return as_image(ImageSequence.Iterator(file))


def as_output(path: Path | None) -> dict:
    """A sample as a node's `ui` has it."""
    if path is None:
        return {}
    folder = path.parent.relative_to(folder_paths.get_output_directory()).as_posix()
    saved = {"filename": path.name, "subfolder": folder, "type": "output"}
    return {"images": [saved], "animated": (path.suffix == _MOVES,)}

"""What is seen of training while it goes on: bars, TensorBoard, videos of the user's own picture."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..files.provenance import Origin
from ..files.video_files import as_picture, write_picture, write_video
from ..files.whole import NotWritten, telling_what_fails
from ..flash.sampling import SamplerConfig
from ..flash.training.action_training import ActionTraining, Host
from ..flash.training.detail_training import DetailHost, DetailTraining
from ..training.exam import Marks
from ..training.run_folder import Progress
from .device import used_memory


class Watcher(Protocol):
    """Whatever shows something of a step that is done."""

    def step(self, progress: Progress) -> None: ...


class Bars:
    """Progress bars: of the pairs that are encoded, where there are some, then of the steps."""

    def __init__(self, device: torch.device, *, steps: int, entries: int = 0, silent: bool) -> None:
        self._device, self._total, self._silent = device, steps, silent
        self._entries = tqdm(
            desc="Encoding clips", total=entries, unit="pair", leave=False, disable=silent or not entries
        )
        self._steps: tqdm | None = None
        self._marks: dict[str, str] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()
        if self._steps is not None:
            self._steps.close()

    def entry(self) -> None:
        self._entries.update()

    def step(self, progress: Progress) -> None:
        if self._steps is None:
            self._entries.close()
            self._steps = tqdm(
                desc="Training",
                total=self._total,
                initial=progress.step - 1,
                unit="step",
                disable=self._silent,
            )
        memory = used_memory(self._device) / 2**30
        shown = {"loss": f"{progress.loss:.4f}", **self._marks, "GiB": f"{memory:.1f}"}
        self._steps.set_postfix(shown, refresh=False)
        self._steps.update()

    def marks(self, marks: Marks) -> None:
        """Show the exam's error from now on."""
        self._marks = {"exam": f"{marks.kept_aside:.4f}"}


class Board:
    """Curves for TensorBoard, in the run's folder; those of steps that are done again are replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: SummaryWriter | None = None
        self._seconds: float | None = None
        self._excepthook = threading.excepthook

    def __enter__(self) -> "Board":
        threading.excepthook = self._note_in_thread
        return self

    def _note_in_thread(self, error: threading.ExceptHookArgs) -> None:
        """The thread that writes raises in ours, too; said twice, once as a traceback, it is no sentence."""
        if not issubclass(error.exc_type, OSError):
            self._excepthook(error)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._writer is not None:
                with telling_what_fails(self._folder):
                    self._writer.close()
        except NotWritten:
            if kind is None:
                raise
        finally:
            threading.excepthook = self._excepthook

    def step(self, progress: Progress) -> None:
        with telling_what_fails(self._folder):
            writer = self._open(progress.step)
            if self._seconds is not None:
                writer.add_scalar("seconds_per_step", progress.seconds - self._seconds, progress.step)
            self._seconds = progress.seconds
            writer.add_scalar("loss", progress.loss, progress.step)

    def marks(self, marks: Marks) -> None:
        """The exam's errors, and the gap between them."""
        with telling_what_fails(self._folder):
            writer = self._open(marks.step)
            writer.add_scalar("exam/kept_aside", marks.kept_aside, marks.step)
            writer.add_scalar("exam/learned_from", marks.learned_from, marks.step)
            writer.add_scalar("exam/gap", marks.gap, marks.step)

    def _open(self, step: int) -> SummaryWriter:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        return self._writer


@dataclass(frozen=True)
class Samples:
    """Videos on the user's own picture, on the way."""

    training: ActionTraining[Host]
    folder: Path
    image_1HWC: Tensor | None
    prompt: str
    seed: int
    every: int
    """Steps between two."""

    def step(self, progress: Progress) -> None:
        if self.image_1HWC is None or progress.step % self.every:
            return
        sampler = SamplerConfig(num_frames=self.training.config.sampling.num_frames)
        frames = self.training.animate(self.image_1HWC, self.prompt, self.seed, sampler)
        write_video(self.folder / f"sample-{progress.step:06d}.mp4", frames, 8, Origin())


@dataclass(frozen=True)
class SamplePictures:
    """Pictures of the detail decoder at work, on the way: true, the VAE alone, ours, and what ours is off."""

    training: DetailTraining[DetailHost]
    folder: Path
    every: int
    """Steps between two."""

    def step(self, progress: Progress) -> None:
        if progress.step % self.every:
            return
        sheet = as_picture(self.training.sample_sheet())
        write_picture(self.folder / f"sample-{progress.step:06d}.png", sheet)

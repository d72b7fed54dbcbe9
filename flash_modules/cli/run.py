"""What the commands that train share: arguments of a run, its folder, and what is said of it."""

import argparse
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..flash.training.method import PRESETS
from ..training.clips import Clips
from ..training.loop import LoopConfig
from ..training.run_folder import Progress, RunFolder
from .device import DTYPES
from .processes import AcceleratedProcesses
from .progress import Bars, Board, Watcher

Say = Callable[[str], object]


def add_size_arguments(group: Any) -> None:
    """Arguments that say how large pictures are."""
    group.add_argument("--preset", choices=PRESETS, default="paper", help="size of pictures: 256, 384, 512")
    group.add_argument("--size", type=int, help="another size, in pixels; a multiple of 8")


def chosen_size(args: argparse.Namespace) -> int:
    """Pixels on a side."""
    size: int = args.size or PRESETS[args.preset]
    return size


def add_run_arguments(group: Any, loop: LoopConfig) -> None:
    """Arguments of a run, with the defaults of `loop`."""
    group.add_argument("--out", required=True, metavar="NAME", help="name of the run and of its result")
    group.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default %(default)s)")
    group.add_argument("--steps", type=int, default=loop.steps, help="default %(default)s")
    group.add_argument("--lr", type=float, default=loop.learning_rate, help="default %(default)s")
    group.add_argument(
        "--cooldown",
        type=float,
        default=loop.cooldown,
        help="share of the steps, the last ones, in which the rate falls to 0 (default %(default)s)",
    )
    group.add_argument(
        "--accumulation", type=int, default=1, help="micro-batches of a step in each process (default 1)"
    )
    group.add_argument("--seed", type=int, default=0, help="default %(default)s")
    group.add_argument(
        "--save-steps",
        type=int,
        default=loop.save_steps,
        help="steps between checkpoints (default %(default)s); one is also written after "
        f"{loop.save_seconds / 60:.0f} minutes. A kill or a power cut costs at most what came after the last",
    )
    group.add_argument("--keep", type=int, default=loop.keep, help="checkpoints kept (default %(default)s)")
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--dtype", choices=["auto", *DTYPES], default="auto", help="auto is bf16 on CUDA, else fp32"
    )


def loop_config(args: argparse.Namespace, loop: LoopConfig) -> LoopConfig:
    """The loop that the arguments describe; what they leave open is as in `loop`."""
    return replace(
        loop,
        steps=args.steps,
        learning_rate=args.lr,
        cooldown=args.cooldown,
        accumulation=args.accumulation,
        save_steps=args.save_steps,
        keep=args.keep,
    )


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number type of that name; `auto` is the device's best."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


@contextmanager
def open_run(
    args: argparse.Namespace, settings: Mapping[str, Any], processes: AcceleratedProcesses
) -> Iterator[RunFolder]:
    """The run's folder, in the hands of these processes; others wait until the first one has made it."""
    run = RunFolder(args.runs, args.out, settings) if processes.is_first else None
    processes.any(False)
    if run is None:
        yield RunFolder(args.runs, args.out, settings, first=False)
        return
    with run.held():
        yield run


def listing(clips: Clips) -> Iterator[str]:
    """What is trained on, and what is left out."""
    actions = Counter(clip.action for clip in clips.used)
    for action, count in actions.items():
        captions = {clip.caption for clip in clips.used if clip.action == action}
        shown = f'"{min(captions)}"' if len(captions) == 1 else f"{len(captions)} captions"
        yield f"{action}: {count} clips, {shown}"
    for clip in clips.used:
        for note in clip.notes:
            yield f"{clip.path.name}: {note}"
    for skipped in clips.skipped:
        yield f"Skipped {skipped.path.name}: {skipped.reason}"
    for other in clips.others:
        yield f"Left out {other.path.name}: {other.reason}"


def train_and_write(
    run: RunFolder,
    steps: int,
    processes: AcceleratedProcesses,
    say: Say,
    *,
    bars: Bars,
    board: Board,
    samples: Watcher,
    train: Callable[..., Progress],
    write: Callable[[Path, int], None],
    memory_is_full: Callable[[], ValueError],
) -> None:
    """Train with all that is seen on the way, write the result into the run's folder, and say so.

    A second Ctrl-C breaks off the step, but the result of the last whole one is written then, too.
    """
    before = run.newest_step()
    finish = partial(
        _write_result, run, steps=steps, say=say, write=write if processes.is_first else _nothing
    )
    with bars, board, stop_signals() as stop:
        watchers: tuple[Watcher, ...] = (bars, board, samples) if processes.is_first else (bars,)

        def on_step(progress: Progress) -> None:
            for watcher in watchers:
                watcher.step(progress)

        try:
            end = train(
                run, processes=processes, stopped=stop, shield=stop.shield, on_step=on_step, on_note=say
            )
        except torch.OutOfMemoryError as error:
            raise memory_is_full() from error
        except KeyboardInterrupt:
            if (step := run.newest_step()) > before:
                with stop.shield():
                    finish(step)
            raise
        with stop.shield():
            finish(end.step)


def _write_result(
    run: RunFolder, step: int, *, steps: int, say: Say, write: Callable[[Path, int], None]
) -> None:
    path = run.path / f"{run.path.name}.safetensors"
    write(path, step)
    say(f"Wrote {path} after {step} of {steps} steps.")
    if step < steps:
        say("It was stopped: the same command goes on from here.")


def _nothing(path: Path, step: int) -> None:
    """What processes other than the first write."""


class Stop:
    """Whether Ctrl-C or SIGTERM came. A second one raises KeyboardInterrupt, at once or after the shield."""

    def __init__(self) -> None:
        self._came = self._came_again = False
        self._shields = 0

    def __call__(self) -> bool:
        return self._came

    def note(self, number: int, frame: object) -> None:
        """What the operating system calls."""
        if self._came and not self._shields:
            raise KeyboardInterrupt
        self._came_again = self._came
        self._came = True

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Nothing breaks in as long as this lasts."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._came_again and not self._shields:
            self._came_again = False
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Tells whether Ctrl-C or SIGTERM came: training ends after its step. A second one breaks it off."""
    stop = Stop()
    kept = {number: signal.signal(number, stop.note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def silent(text: str) -> None:
    """What processes other than the first say."""

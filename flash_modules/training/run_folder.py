"""A run on disk: its settings, its checkpoints, its losses. A kill at any moment leaves whole files only."""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..files.digest import files_sha256
from ..files.json_file import read_json
from ..files.lock import Held, locked
from ..files.tensor_file import Tensors, check_numbers, read_tensors, write_tensors
from ..files.whole import (
    clear_drafts,
    discard,
    rename,
    telling_what_fails,
    whole,
    write_text,
)
from .changes import changes, same_kind
from .losses import LossTable as LossTable  # parts of the folder, also for who looks for them here
from .losses import read_losses as read_losses

_NAME = re.compile(r"[\w][\w .-]*")
_MAX_NAME = 200
"""Bytes; file systems take 255, endings included."""
_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]*)")
_NEW = ".new"
"""Ends the name of a checkpoint that is whole and waits for the place of another of its step."""
_SUMS = "SHA256SUMS"
"""Of a checkpoint's other files, as `sha256sum` writes it. Checkpoints from before have none."""
_SMOOTHING = 0.98

SETTINGS = "settings.json"
"""A run's file that is written first."""

Settings = Mapping[str, Any]
"""What a run consists of, as JSON knows it: a run goes on only with the same."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    """Of training, in all sittings together."""
    loss: float | None = None
    """Smoothed."""
    best: float | None = None
    """The lowest smoothed loss at a checkpoint."""

    def after(self, loss: float, seconds: float) -> "Progress":
        """Where the run is after one more step, with that loss."""
        smooth = loss if self.loss is None else _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss
        return replace(self, step=self.step + 1, seconds=seconds, loss=smooth)


@dataclass(frozen=True)
class Checkpoint:
    """A state that a run can go on from."""

    progress: Progress
    weights: Tensors
    optimizer: Tensors


Fits = Callable[[Checkpoint], object]
"""Raises ValueError for a checkpoint that is not one of this training."""


def check_run_name(parent: Path, name: str) -> None:
    """Raise ValueError unless a run of that name can lie there. Nothing is written."""
    if not _NAME.fullmatch(name) or len(os.fsencode(name)) > _MAX_NAME:
        raise ValueError(
            f"The run's name '{name}' must be letters, digits, spaces, '.', '-' and '_', at most "
            f"{_MAX_NAME} bytes, and begin with a letter or digit: it becomes a folder."
        )
    result = parent / name / f"{name}.safetensors"
    if result.is_dir():
        raise ValueError(f"{result} is a folder, but the run's result gets that name: rename it.")
    nearest = next(place for place in (parent / name, *(parent / name).parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise ValueError(f"{nearest} is a file, and no run can lie in it: give another name or folder.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"Nothing can be written into {nearest}: give another folder, or allow it.")


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of all checkpoints in a run's folder, the newest first."""
    found = (_CHECKPOINT.fullmatch(path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in found if match), reverse=True)


class RunFolder:
    """The folder of one run."""

    def __init__(self, parent: Path, name: str, settings: Settings, *, first: bool = True) -> None:
        """Raises ValueError for a name that is no plain one, and for a run with other settings.

        The first process clears away what a killed one left half written; others must come after it. It is
        refused while another program trains in the folder.
        """
        check_run_name(parent, name)
        self.path = parent / name
        self._readable: dict[int, bool] = {}
        """By step, as far as it was looked at."""
        self._fits: Fits = lambda checkpoint: None
        self._holds = 0
        with telling_what_fails(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if first:
            with self.held():
                self._tidy()
                self._check(name, settings)
        else:
            self._check(name, settings)
        self.best()  # these two raise, and before a model is read, if the files are odd
        read_losses(self.path / "loss.csv")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Train in the folder alone. Raises ValueError if another process does; a kill lets go."""
        if self._holds:
            yield
            return
        try:
            with locked(self.path):
                self._holds += 1
                try:
                    yield
                finally:
                    self._holds -= 1
        except Held as error:
            raise ValueError(
                f"The run '{self.path.name}' is being trained by another process, in {self.path}: wait for "
                "its end, or give another name."
            ) from error

    def _tidy(self) -> None:
        """Finish or clear away what a kill broke off."""
        clear_drafts(self.path)
        for path in self.path.glob(f"checkpoint-*{_NEW}"):
            self._put_in_place(path)

    def _put_in_place(self, new: Path) -> None:
        final = new.with_name(new.name.removesuffix(_NEW))
        if os.path.lexists(final):
            discard(final)
        rename(new, final)

    def _check(self, name: str, settings: Settings) -> None:
        file = self.path / SETTINGS
        settings = json.loads(json.dumps(settings))
        if not file.is_file():
            write_text(file, json.dumps(settings, indent=2) + "\n")
            return
        then = read_json(file)
        if not same_kind(then, settings):
            raise ValueError(
                f"The run '{name}' is of another kind of training: give another name. It lies in {self.path}."
            )
        found = list(changes(then, settings))
        if found:
            raise ValueError(
                f"The run '{name}' was begun with other settings ({'; '.join(found)}): give "
                f"another name, or the same settings to go on. It lies in {self.path}."
            )

    @property
    def stop_file(self) -> Path:
        """While this file exists, a run ends after its present step."""
        return self.path / "stop"

    def checkpoints(self) -> list[int]:
        """Steps of all checkpoints, the newest first."""
        return checkpoint_steps(self.path)

    def write(self, checkpoint: Checkpoint, keep: int) -> None:
        """Write a checkpoint; of the others the newest that can be read are kept, and the best.

        It is on the disk before an old one goes. Raises OSError if that fails, on a full disk for example;
        all earlier ones are as they were then.
        """
        step = checkpoint.progress.step
        final = self._folder(step)
        there = os.path.lexists(final)
        place = final.with_name(final.name + _NEW) if there else final
        if there and os.path.lexists(place):
            discard(place)
        with whole(place) as draft:
            draft.mkdir()
            write_tensors(draft / "trainable.safetensors", checkpoint.weights, {"format": "pt"})
            write_tensors(draft / "optimizer.safetensors", checkpoint.optimizer, {"format": "pt"})
            write_text(draft / "state.json", json.dumps(asdict(checkpoint.progress), indent=2) + "\n")
            write_text(draft / _SUMS, _sums(draft))
        if there:
            self._put_in_place(place)
        self._readable[step] = True
        self._drop_old(keep, checkpoint.progress)

    def _drop_old(self, keep: int, progress: Progress) -> None:
        if progress.loss is not None and progress.loss == progress.best:
            write_text(self.path / "best", f"{progress.step}\n")
        kept = 0
        for step in self.checkpoints():
            if kept >= keep:
                if step != self.best():
                    discard(self._folder(step))
            elif self._is_readable(step):
                kept += 1

    def _is_readable(self, step: int) -> bool:
        if step not in self._readable:
            self._try(step)
        return self._readable[step]

    def best(self) -> int | None:
        """The step of the checkpoint with the lowest smoothed loss."""
        file = self.path / "best"
        if not file.is_file():
            return None
        text = file.read_bytes()[:100].strip()
        if not re.fullmatch(rb"[0-9]{1,18}", text):
            raise ValueError(
                f"{file} is damaged: it does not hold the step of the best checkpoint. Delete it to go on."
            )
        return int(text)

    def newest(self, fits: Fits = lambda checkpoint: None) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be read and fits, and a sentence for each that does not."""
        self._fits = fits
        notes: list[str] = []
        for step in self.checkpoints():
            checkpoint = self._try(step)
            if isinstance(checkpoint, Checkpoint):
                return checkpoint, notes
            notes.append(f"Checkpoint {step} is damaged and was passed over ({checkpoint}).")
        return None, notes

    def newest_step(self) -> int:
        """The step of the newest checkpoint by its state alone, which is quickly read; 0 without one."""
        for step in self.checkpoints():
            with suppress(ValueError):
                return _read_progress(self._folder(step) / "state.json", step).step
        return 0

    def _try(self, step: int) -> Checkpoint | Exception:
        """The checkpoint of that step, or why it cannot be used."""
        try:
            checkpoint = self.read(step)
            self._fits(checkpoint)
        except (ValueError, OSError) as error:
            self._readable[step] = False
            return error
        self._readable[step] = True
        return checkpoint

    def read(self, step: int) -> Checkpoint:
        """The checkpoint of that step. Raises ValueError or OSError if it is damaged."""
        folder = self._folder(step)
        _check_sums(folder)
        weights, _ = read_tensors(folder / "trainable.safetensors")
        optimizer, _ = read_tensors(folder / "optimizer.safetensors")
        for tensors in (weights, optimizer):
            check_numbers(tensors, folder.name)
        return Checkpoint(_read_progress(folder / "state.json", step), weights, optimizer)

    def _folder(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"


def _sums(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.name != _SUMS)
    return "".join(f"{files_sha256([path])}  {path.name}\n" for path in files)


def _check_sums(folder: Path) -> None:
    """Raise ValueError unless the files are those that were written."""
    file = folder / _SUMS
    if file.is_file() and file.read_bytes() != _sums(folder).encode():
        raise ValueError(f"the files in {folder.name} are not those that were written: see {_SUMS}")


def _read_progress(file: Path, step: int) -> Progress:
    state = read_json(file)
    try:
        progress = Progress(**state)
        numbers = [progress.seconds, *(n for n in (progress.loss, progress.best) if n is not None)]
        if type(progress.step) is not int or not all(math.isfinite(number) for number in numbers):
            raise ValueError("an entry is not what it should be")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} is damaged ({error})") from error
    if progress.step != step:
        raise ValueError(f"{file} is of step {progress.step}")
    return progress

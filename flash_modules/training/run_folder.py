"""A run on disk: its settings, its checkpoints, its losses. A kill at any moment leaves whole files only."""

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..files.tensor_file import Tensors, read_tensors, write_tensors
from ..files.whole import DRAFTS, whole, write_text

_NAME = re.compile(r"[\w][\w .-]*")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_COLUMNS = ("step", "seconds", "loss")
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


class RunFolder:
    """The folder of one run."""

    def __init__(self, parent: Path, name: str, settings: Settings, *, first: bool = True) -> None:
        """Raises ValueError for a name that is no plain one, and for a run with other settings.

        The first process clears away what a killed one left half written; others must come after it.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"The run's name '{name}' must be letters, digits, spaces, '.', '-' and '_', and begin with "
                "a letter or digit: it becomes a folder."
            )
        self.path = parent / name
        self.path.mkdir(parents=True, exist_ok=True)
        if first:
            self._clear_drafts()
        self._check(name, settings)

    def _clear_drafts(self) -> None:
        for draft in self.path.glob(DRAFTS):
            if draft.is_dir():
                shutil.rmtree(draft)
            else:
                draft.unlink()

    def _check(self, name: str, settings: Settings) -> None:
        file = self.path / SETTINGS
        settings = json.loads(json.dumps(settings))
        if not file.is_file():
            write_text(file, json.dumps(settings, indent=2) + "\n")
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        other = sorted(key for key in known.keys() | settings.keys() if known.get(key) != settings.get(key))
        if other:
            changes = "; ".join(_change(key, known, settings) for key in other)
            raise ValueError(
                f"The run '{name}' was begun with other settings ({changes}): give "
                f"another name, or the same settings to go on. It lies in {self.path}."
            )

    @property
    def stop_file(self) -> Path:
        """While this file exists, a run ends after its present step."""
        return self.path / "stop"

    def checkpoints(self) -> list[int]:
        """Steps of all checkpoints, the newest first."""
        found = (_CHECKPOINT.fullmatch(path.name) for path in self.path.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def write(self, checkpoint: Checkpoint, keep: int) -> None:
        """Write a checkpoint; of the others the newest are kept, and the best.

        Raises OSError if that fails, on a full disk for example; all earlier ones are as they were then.
        """
        step = checkpoint.progress.step
        final = self._folder(step)
        with whole(final) as draft:
            draft.mkdir()
            write_tensors(draft / "trainable.safetensors", checkpoint.weights, {"format": "pt"})
            write_tensors(draft / "optimizer.safetensors", checkpoint.optimizer, {"format": "pt"})
            write_text(draft / "state.json", json.dumps(asdict(checkpoint.progress), indent=2) + "\n")
            if final.exists():
                shutil.rmtree(final)
        self._drop_old(keep, checkpoint.progress)

    def _drop_old(self, keep: int, progress: Progress) -> None:
        if progress.loss is not None and progress.loss == progress.best:
            write_text(self.path / "best", f"{progress.step}\n")
        for step in self.checkpoints()[keep:]:
            if step != self.best():
                shutil.rmtree(self._folder(step))

    def best(self) -> int | None:
        """The step of the checkpoint with the lowest smoothed loss."""
        file = self.path / "best"
        return int(file.read_text(encoding="utf-8")) if file.is_file() else None

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that can be read, and a sentence for each that cannot."""
        notes: list[str] = []
        for step in self.checkpoints():
            try:
                return self.read(step), notes
            except (ValueError, OSError, KeyError, TypeError) as error:
                notes.append(f"Checkpoint {step} is damaged and was passed over ({error}).")
        return None, notes

    def read(self, step: int) -> Checkpoint:
        """The checkpoint of that step. Raises ValueError, OSError, KeyError or TypeError if it is damaged."""
        folder = self._folder(step)
        weights, _ = read_tensors(folder / "trainable.safetensors")
        optimizer, _ = read_tensors(folder / "optimizer.safetensors")
        progress = Progress(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
        return Checkpoint(progress, weights, optimizer)

    def _folder(self, step: int) -> Path:
        return self.path / f"checkpoint-{step}"


def read_losses(path: Path) -> list[float]:
    """The losses in a run's loss.csv, step by step."""
    return [float(loss) for _, _, loss in _rows(path)]


class LossTable:
    """loss.csv: a row for each step."""

    def __init__(self, path: Path, step: int) -> None:
        """Rows after this step are dropped: that part of the run is done again."""
        rows = [row for row in _rows(path) if int(row[0]) <= step]
        write_text(path, "".join(",".join(row) + "\n" for row in [_COLUMNS, *rows]))
        self._file = path.open("a", newline="", encoding="utf-8")

    def add(self, step: int, seconds: float, loss: float) -> None:
        csv.writer(self._file, lineterminator="\n").writerow([step, f"{seconds:.3f}", f"{loss:.6g}"])

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rows(path: Path) -> Iterator[Sequence[str]]:
    """Whole rows of the table; the last one may be cut short."""
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            yield from (row for row in csv.reader(file) if len(row) == len(_COLUMNS) and row[0].isdigit())


def _change(key: str, known: Settings, settings: Settings) -> str:
    return f"{key}: {_short(known.get(key))} then, {_short(settings.get(key))} now"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

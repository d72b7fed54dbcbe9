"""Tables of a run, as CSV: loss.csv has a row for each step, exam.csv one for each exam."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files.whole import flush_handle, telling_what_fails, write_text

_FIRST = ("step", "seconds")
LOSS = ("loss",)
"""The columns of loss.csv behind the first two."""


class Diverged(ValueError):
    """The loss, a gradient or an exam is no number any more."""


def read_losses(path: Path) -> list[float]:
    """The losses in a run's loss.csv, step by step. Raises ValueError, naming it, if it is another file."""
    return [loss for _, (loss,) in read_table(path, LOSS)]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, tuple[float, ...]]]:
    """Steps and values of a table with these columns; none where there is no file. Raises likewise."""
    return [(int(step), tuple(map(float, values))) for step, _, *values in _rows(path, columns)]


class LossTable:
    """A table that grows row by row."""

    def __init__(self, path: Path, step: int, columns: Sequence[str] = LOSS) -> None:
        """Rows after this step are dropped: that part of the run is done again."""
        rows = [row for row in _rows(path, columns) if int(row[0]) <= step]
        write_text(path, "".join(",".join(row) + "\n" for row in [(*_FIRST, *columns), *rows]))
        self._path = path
        with telling_what_fails(path):
            self._file = path.open("a", newline="", encoding="utf-8")

    def add(self, step: int, seconds: float, *values: float) -> None:
        """A row with a value for each column."""
        row = [step, f"{seconds:.3f}", *(f"{value:.6g}" for value in values)]
        with telling_what_fails(self._path):
            csv.writer(self._file, lineterminator="\n").writerow(row)

    def flush(self) -> None:
        """Bring all rows to the disk."""
        with telling_what_fails(self._path):
            self._file.flush()
            flush_handle(self._file.fileno())

    def close(self) -> None:
        with telling_what_fails(self._path):
            self._file.close()


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Sequence[str]]:
    """Whole rows of the table. The last ones may be cut short: a power cut leaves anything there."""
    if not path.is_file():
        return
    header = (*_FIRST, *columns)
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    rows = [line.rstrip("\r").split(",") for line in lines]
    good = [_is_row(row, len(header)) for row in rows]
    end = max((i for i, is_good in enumerate(good) if is_good), default=0) + 1
    if tuple(rows[0]) != header or not all(good[1:end]):
        raise ValueError(
            f"{path} is damaged: it is no table of {', '.join(header)}. Move it away to go on without it."
        )
    yield from rows[1:end]


def _is_row(row: Sequence[str], length: int) -> bool:
    try:
        step = row[0]
        numbers = all(math.isfinite(float(number)) for number in row)
    except ValueError:
        return False
    return len(row) == length and step.isascii() and step.isdigit() and numbers

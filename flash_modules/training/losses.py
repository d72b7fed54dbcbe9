"""loss.csv: the losses of a run, step by step."""

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..files.whole import flush_handle, telling_what_fails, write_text

_COLUMNS = ("step", "seconds", "loss")


def read_losses(path: Path) -> list[float]:
    """The losses in a run's loss.csv, step by step. Raises ValueError, naming it, if it is another file."""
    return [float(loss) for _, _, loss in _rows(path)]


class LossTable:
    """loss.csv: a row for each step."""

    def __init__(self, path: Path, step: int) -> None:
        """Rows after this step are dropped: that part of the run is done again."""
        rows = [row for row in _rows(path) if int(row[0]) <= step]
        write_text(path, "".join(",".join(row) + "\n" for row in [_COLUMNS, *rows]))
        self._path = path
        with telling_what_fails(path):
            self._file = path.open("a", newline="", encoding="utf-8")

    def add(self, step: int, seconds: float, loss: float) -> None:
        with telling_what_fails(self._path):
            csv.writer(self._file, lineterminator="\n").writerow([step, f"{seconds:.3f}", f"{loss:.6g}"])

    def flush(self) -> None:
        """Bring all rows to the disk."""
        with telling_what_fails(self._path):
            self._file.flush()
            flush_handle(self._file.fileno())

    def close(self) -> None:
        with telling_what_fails(self._path):
            self._file.close()


def _rows(path: Path) -> Iterator[Sequence[str]]:
    """Whole rows of the table. The last ones may be cut short: a power cut leaves anything there."""
    if not path.is_file():
        return
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    rows = [line.rstrip("\r").split(",") for line in lines]
    good = [_is_row(row) for row in rows]
    end = max((i for i, is_good in enumerate(good) if is_good), default=0) + 1
    if tuple(rows[0]) != _COLUMNS or not all(good[1:end]):
        raise ValueError(
            f"{path} is damaged: it is no table of {', '.join(_COLUMNS)}. Move it away to go on without it."
        )
    yield from rows[1:end]


def _is_row(row: Sequence[str]) -> bool:
    try:
        step, _, _ = row
        return step.isascii() and step.isdigit() and all(math.isfinite(float(number)) for number in row)
    except ValueError:
        return False

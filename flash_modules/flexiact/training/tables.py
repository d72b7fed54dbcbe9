"""The tables that the released code learns from: crop.csv and val_image.csv."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CROPS = ("path", "start_frame", "end_frame", "fps", "mask_id", "caption")
_PICTURES = ("path", "caption")
_LEARNED_FPS = 8
_MOST_BYTES = 2**20
"""Twelve rows take kilobytes."""


@dataclass(frozen=True, kw_only=True)
class CropRow:
    """A row of crop.csv: a video, cropped already, and which of its frames are taken."""

    path: Path
    frames: range
    """Every `fps // 8`-th from the start up to the end, which is not among them."""
    caption: str
    place: str
    """Of the row, for messages."""


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """A row of val_image.csv: a picture that performs on the way, and its prompt."""

    path: Path
    caption: str


def read_crops(table: Path) -> list[CropRow]:
    """The rows of a crop.csv; its mask_id is not used, as in the released code.

    Paths are looked for where the command runs, then in the table's folder and those above it. Raises
    ValueError for the first row that cannot be used.
    """
    rows = []
    for place, (path, start, end, fps, _, caption) in _rows(table, _CROPS):
        first, last = (_whole_number(value, place, "frame") for value in (start, end))
        if not 0 <= first < last:
            raise ValueError(f"{place} goes from frame {first} to {last}: it must begin before it ends.")
        stride = int(_number(fps, place) // _LEARNED_FPS)
        if stride < 1:
            raise ValueError(f"{place} has {fps} frames per second: at least {_LEARNED_FPS} are needed.")
        frames = range(first, last, stride)
        rows.append(CropRow(path=_found(path, table, place), frames=frames, caption=caption, place=place))
    return rows


def read_pictures(table: Path) -> list[PictureRow]:
    """The rows of a val_image.csv, found as in `read_crops`. Raises ValueError for a row that cannot be."""
    return [
        PictureRow(path=_found(path, table, place), caption=caption)
        for place, (path, caption) in _rows(table, _PICTURES)
    ]


def _rows(table: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Where each row stands, and its cells; the first row names the columns, or is a row as all others."""
    wanted = f"{len(columns)} columns are expected: {', '.join(columns)}"
    empty = True
    try:
        reader = csv.reader(io.StringIO(_text(table), newline=""), strict=True)
        for number, cells in enumerate(reader):
            is_heading = number == 0 and cells and cells[0].strip().lower() == "path"
            if not any(map(str.strip, cells)) or is_heading:
                continue
            place = f"Line {reader.line_num} of {table.name}"
            if len(cells) != len(columns):
                raise ValueError(f"{place} has {len(cells)} columns, and {wanted}.")
            empty = False
            yield place, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ValueError(f"{table} is no table that can be read ({error}): {wanted}.") from error
    if empty:
        raise ValueError(f"{table} has no rows: {wanted}.")


def _text(table: Path) -> str:
    try:
        with table.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"{table} is larger than 1 MiB, and so no table of crops or pictures.")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{table} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{table} is not written in UTF-8: save it as CSV in UTF-8.") from error


def _number(value: str, place: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{place} has {value!r} where a number is expected.")
    return number


def _whole_number(value: str, place: str, what: str) -> int:
    number = _number(value, place)
    if number != int(number):
        raise ValueError(f"{place} has {value} where the number of a {what} is expected.")
    return int(number)


def _found(path: str, table: Path, place: str) -> Path:
    for folder in (Path(), *table.absolute().parents):
        if path and (folder / path).exists():
            return folder / path
    raise ValueError(
        f"{place} names {path or 'no file'}, which is not there: paths count from where the command runs, or "
        "from a folder above the table."
    )

"""Tables of the released data: crop.csv and val_image.csv."""

import re
from pathlib import Path

import pytest

from flash_pack.flash_modules.flexiact.training.tables import read_crops, read_pictures

HEADING = "path,start_frame,end_frame,fps,mask_id,caption\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where the released data has it; its paths begin with the outermost folder."""
    folder = tmp_path / "benchmark" / "captions" / "human" / "turn"
    folder.mkdir(parents=True)
    (tmp_path / "benchmark" / "0.mp4").touch()
    return folder / "crop.csv"


@pytest.mark.parametrize("heading", ["", HEADING, "\ufeff" + HEADING])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_are_read_with_heading_or_without(table: Path, heading: str, end: str) -> None:
    rows = ['benchmark/0.mp4,3,49,16.0,0,"A man, who\nturns."', "benchmark/0.mp4,0,9,8,0,Another"]
    table.write_text(heading + end.join(rows) + "\n", newline="", encoding="utf-8")
    first, second = read_crops(table)
    assert (first.frames, first.caption) == (range(3, 49, 2), "A man, who\nturns.")
    assert (second.frames, second.caption) == (range(9), "Another")
    assert first.path.samefile(table.parents[3] / "0.mp4")


def test_a_path_counts_from_where_the_command_runs_first(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "elsewhere" / "benchmark" / "0.mp4"
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.chdir(tmp_path / "elsewhere")
    table.write_text("benchmark/0.mp4,0,49,8,0,a")
    assert read_crops(table)[0].path.samefile(other)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            "benchmark/0.mp4,0,49,8,a",
            "Line 2 of crop.csv has 5 columns, and 6 columns are expected: path, start_frame",
        ),
        ("benchmark/0.mp4,0,49,8,0,a,b", "Line 2 of crop.csv has 7 columns"),
        ("benchmark/1.mp4,0,49,8,0,a", "Line 2 of crop.csv names benchmark/1.mp4, which is not there"),
        (",0,49,8,0,a", "Line 2 of crop.csv names no file"),
        (
            "benchmark/0.mp4,9,9,8,0,a",
            "Line 2 of crop.csv goes from frame 9 to 9: it must begin before it ends",
        ),
        ("benchmark/0.mp4,-1,9,8,0,a", "Line 2 of crop.csv goes from frame -1 to 9"),
        (
            "benchmark/0.mp4,0,49,7.9,0,a",
            "Line 2 of crop.csv has 7.9 frames per second: at least 8 are needed",
        ),
        ("benchmark/0.mp4,0,49,nan,0,a", "Line 2 of crop.csv has 'nan' where a number is expected"),
        ("benchmark/0.mp4,x,49,8,0,a", "Line 2 of crop.csv has 'x' where a number"),
        ("benchmark/0.mp4,0.5,49,8,0,a", "Line 2 of crop.csv has 0.5 where the number of a frame"),
        ("benchmark/0.mp4,0,inf,8,0,a", "Line 2 of crop.csv has 'inf' where a number"),
        ('benchmark/0.mp4,0,49,8,0,"a', "crop.csv is no table that can be read"),
        ("", "crop.csv has no rows: 6 columns are expected"),
    ],
)
def test_bad_rows_are_sentences(table: Path, row: str, sentence: str) -> None:
    table.write_text(HEADING + row)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        read_crops(table)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\xff\xfe\x00", "is not written in UTF-8"),
        (b"a" * (2**20 + 1), "is larger than 1 MiB"),
        (None, "cannot be read (No such file"),
    ],
)
def test_files_that_are_no_tables_are_sentences(table: Path, data: bytes | None, sentence: str) -> None:
    if data is not None:
        table.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read_crops(table)


def test_pictures_that_perform_are_read(table: Path) -> None:
    table.with_name("val_image.csv").write_text('path,caption\nbenchmark/0.mp4,"A cat, that turns"\n')
    (row,) = read_pictures(table.with_name("val_image.csv"))
    assert (row.path.name, row.caption) == ("0.mp4", "A cat, that turns")

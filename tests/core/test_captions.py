"""Captions that match no clip, and files that are none, are named."""

from pathlib import Path

import pytest

from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.odd_clips import bar_clip, bars


def named(folder: Path) -> dict[str, str]:
    return {str(one.path.relative_to(folder)): one.reason for one in find_clips([folder]).others}


def test_captions_that_match_no_clip_are_named(tmp_path: Path) -> None:
    for name in ("one", "two", "three", "four", "five"):
        bar_clip(tmp_path / f"{name}.mp4", 3)
    for name in ("one.mp4.txt", "two.TXT", "thre.txt", "four.caption", "five.txt"):
        (tmp_path / name).write_text("a bar moves")
    reasons = named(tmp_path)
    assert reasons == {
        "one.mp4.txt": "it is not read: name it one.txt if it is the caption of one.mp4",
        "two.TXT": "it is not read: name it two.txt if it is the caption of two.mp4",
        "thre.txt": "it is the caption of no clip: none has its name",
        "four.caption": "it is not read: name it four.txt if it is the caption of four.mp4",
    }
    captions = {clip.path.stem: clip.caption_file for clip in find_clips([tmp_path]).used}
    assert captions["five"] == tmp_path / "five.txt"
    assert captions["one"] is None


def test_every_file_that_is_left_out_is_named(tmp_path: Path) -> None:
    bar_clip(tmp_path / "a.mp4", 3)
    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(bars(3)):
        picture.save(tmp_path / "frames" / f"{i}.png")
    for name in (
        "frames/3.heic",
        "frames/words.txt",
        "b.rm",
        "notes.pdf",
        ".c.mp4",
        "Thumbs.db",
        ".DS_Store",
    ):
        (tmp_path / name).write_bytes(b"something")
    next(bars(1)).save(tmp_path / "cover.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "frames.txt").write_text("a bar moves")
    assert named(tmp_path) == {
        ".c.mp4": "its name begins with a dot, as hidden ones do",
        "b.rm": "its name is not that of a video",
        "cover.jpg": "it is a picture that stands still",
        "empty": "it is a folder without clips and pictures",
        "notes.pdf": "its name is not that of a video",
        "frames/3.heic": "its name is not that of a picture",
        "frames/words.txt": "it is the caption of no clip: none has its name",
    }


def test_captions_of_clips_that_are_skipped_are_not_blamed(tmp_path: Path) -> None:
    bar_clip(tmp_path / "a.mp4", 3)
    (tmp_path / "b.mp4").touch()
    (tmp_path / "b.txt").write_text("a bar moves")
    assert not named(tmp_path)


def test_captions_that_are_books_are_refused(tmp_path: Path) -> None:
    bar_clip(tmp_path / "a.mp4", 3)
    bar_clip(tmp_path / "b.mp4", 3)
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(10**10)
    (skipped,) = find_clips([tmp_path]).skipped
    assert skipped.reason == "its caption a.txt has 10000000000 bytes: write a sentence"


def test_folders_with_nothing_to_use_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"something")
    with pytest.raises(
        ValueError, match=r"holds no clips: put videos .*\n.*It holds:\n  notes.pdf: its name|It holds:\n"
    ):
        find_clips([tmp_path])

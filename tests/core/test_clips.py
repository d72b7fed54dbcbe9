"""Clips in folders: found, named and captioned, and refused with a reason."""

from pathlib import Path

import pytest
from PIL import Image

from flash_pack.flash_modules.training.clips import find_clips, read_caption
from flash_pack.tests.core.small_clips import write_folder, write_video


def test_clips_are_counted_while_they_are_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").touch()
    counted: list[int] = []
    find_clips([tmp_path], on_clip=lambda: counted.append(1))
    assert len(counted) == 2


def test_folders_without_clips_are_refused(tmp_path: Path) -> None:
    for name in ("empty", "notes", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a note")
    for i in range(12):
        (tmp_path / "bad" / f"{i}.mp4").touch()
    for name in ("empty", "notes"):
        with pytest.raises(ValueError, match=rf"{name} holds no clips: put videos \(.mp4"):
            find_clips([tmp_path / name])
    with pytest.raises(
        ValueError, match=r"No clip in .*bad can be used:\n  0.mp4: the file is empty"
    ) as caught:
        find_clips([tmp_path / "bad"])
    assert str(caught.value).endswith("  9.mp4: the file is empty (0 bytes)\n  and 2 more")
    with pytest.raises(ValueError, match=r"There is no folder .*missing"):
        find_clips([tmp_path / "missing"])
    with pytest.raises(ValueError, match="There are no clips: give a folder"):
        find_clips([])


def test_one_good_action_does_not_hide_an_empty_one(tmp_path: Path) -> None:
    write_video(tmp_path / "jump" / "a.mp4")
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="run holds no clips"):
        find_clips([tmp_path / "jump", tmp_path / "run"])


def test_hidden_files_and_pictures_beside_videos_are_no_clips(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "._a.mp4").write_bytes(b"what macOS leaves")
    Image.new("RGB", (8, 8)).save(tmp_path / "cover.png")
    (write_folder(tmp_path / "b") / "._b.mp4").write_bytes(b"what macOS leaves")
    (tmp_path / "b" / "._frame0.png").write_bytes(b"what macOS leaves")
    found = find_clips([tmp_path])
    assert [one.path.name for one in found.used] == ["a.mp4", "b"]
    assert [one.num_frames for one in found.used] == [20, 12]
    assert not found.skipped


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
def test_captions_are_read_in_any_usual_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.b.txt").write_bytes(" Ein Mädchen\r\nläuft café \n".encode(encoding))
    assert read_caption(tmp_path / "a.b.mp4") == "Ein Mädchen läuft café"
    assert read_caption(tmp_path / "c.mp4") is None
    (tmp_path / "a.b").mkdir()  # a folder of frames
    (tmp_path / "a.txt").write_text("not this one")
    assert read_caption(tmp_path / "a.b") == "Ein Mädchen läuft café"


def test_captions_in_other_scripts_and_words_quotes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xfe\xff" + "女孩在跑".encode("utf-16-be"))
    (tmp_path / "b.txt").write_bytes(b"\x93jump\x94")  # quotation marks that Latin-1 does not have
    assert read_caption(tmp_path / "a.mp4") == "女孩在跑"
    assert read_caption(tmp_path / "b.mp4") == "\u201cjump\u201d"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "its caption a.txt is empty: write one, or delete the file to use the prompt"),
        (b"\xef\xbb\xbf \r\n", "its caption a.txt is empty"),
        ("jump".encode("utf-16-le"), "its caption a.txt is no text that can be read: save it as UTF-8"),
        (b"\xff\xfea", "its caption a.txt is no text"),
        (b"\x81\x8d", "its caption a.txt is no text"),
    ],
)
def test_captions_that_say_nothing_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    write_video(tmp_path / "a.mp4", 2)
    write_video(tmp_path / "b.mp4", 2)
    (tmp_path / "a.txt").write_bytes(data)
    found = find_clips([tmp_path], ["a person is jumping"])
    assert [one.path.name for one in found.used] == ["b.mp4"]
    assert found.skipped[0].reason.startswith(reason)


def test_caption_comes_from_text_then_prompt_then_folder(tmp_path: Path) -> None:
    folders = [tmp_path / "soccer_shoot-left", tmp_path / "Jump"]
    for folder in folders:
        write_video(folder / "a.mp4", 2)
        write_video(folder / "b.mp4", 2)
        write_folder(folder / "c", 2)
    (folders[0] / "b.txt").write_text("a boy shoots")
    (folders[0] / "c.txt").write_text("a girl shoots")
    captions = ["soccer shoot left", "a boy shoots", "a girl shoots", "Jump", "Jump", "Jump"]
    assert [one.caption for one in find_clips(folders).used] == captions
    one_prompt = [one.caption for one in find_clips(folders, ["x"]).used]
    assert one_prompt == ["x", "a boy shoots", "a girl shoots", "x", "x", "x"]
    two_prompts = [one.caption for one in find_clips(folders, ["x", "y"]).used]
    assert two_prompts == ["x", "a boy shoots", "a girl shoots", "y", "y", "y"]
    actions = [one.action for one in find_clips(folders, ["x"]).used]
    assert actions == ["soccer shoot left"] * 3 + ["Jump"] * 3


def test_prompts_and_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("jump", "run", "old/jump")]
    for folder in folders:
        write_video(folder / "a.mp4", 2)
    with pytest.raises(
        ValueError, match="There are 2 prompts for 1 folders: give one for all, or one for each"
    ):
        find_clips(folders[:1], ["a", "b"])
    with pytest.raises(ValueError, match="A prompt is empty"):
        find_clips(folders[:1], [" "])
    with pytest.raises(ValueError, match="Two folders are named 'jump'"):
        find_clips(folders)

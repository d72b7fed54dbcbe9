"""What was done to clips, and what is left out, is said by `preview` and before training."""

from pathlib import Path

import av
import pytest

from flash_pack.flash_modules.cli.run import listing
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.backends.command_line import run_command
from flash_pack.tests.core.odd_clips import bar_clip, bars, encode


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    frames = [av.VideoFrame.from_image(picture) for picture in bars(12)]
    encode(tmp_path / "clips" / "a.mp4", frames, **{"x264-params": "interlaced=1:tff=1"})
    bar_clip(
        tmp_path / "clips" / "b.mp4", 12, prepare=lambda stream: stream.set_display_rotation(0, hflip=True)
    )
    (tmp_path / "clips" / "b.TXT").write_text("a bar moves")
    (tmp_path / "clips" / "notes.pdf").write_text("a note")
    return tmp_path / "clips"


def test_preview_says_what_was_done_and_what_is_left_out(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("preview", {"clips": clips, "size": 32, "frames": 3, "out": tmp_path / "s.png"}) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "! it is interlaced: its frames are deinterlaced" in lines
    assert "96x64, mirrored, 12 frames" in next(line for line in lines if "b.mp4" in line)
    assert "clips/b.TXT      left out: it is not read: name it b.txt if it is the caption of b.mp4" in lines
    assert "clips/notes.pdf  left out: its name is not that of a video" in lines
    assert "2 of 2 clips used: 'clips' 2." in lines


def test_training_says_the_same_before_it_begins(clips: Path) -> None:
    assert list(listing(find_clips([clips])))[1:] == [
        "a.mp4: it is interlaced: its frames are deinterlaced",
        "Left out b.TXT: it is not read: name it b.txt if it is the caption of b.mp4",
        "Left out notes.pdf: its name is not that of a video",
    ]

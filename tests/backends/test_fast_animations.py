"""GIF and WebP last as long as they should, and no frame is shorter than viewers show it."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.files.video_files import frames_skipped, write_video
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.backends.command_line import run_command


def write(path: Path, num_frames: int, fps: int) -> list[float]:
    """How long each frame lasts, in ms; of frames that differ."""
    write_video(path, (torch.full((16, 16, 3), i / num_frames) for i in range(num_frames)), fps)
    with Image.open(path) as file:
        durations = []
        for i in range(file.n_frames):
            file.seek(i)
            file.load()
            durations.append(file.info["duration"])
    return durations


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
@pytest.mark.parametrize("fps", [8, 12, 24, 25, 30, 48, 50, 51, 60, 90, 120, 240, 2000])
def test_animations_last_as_long_as_they_should(tmp_path: Path, suffix: str, fps: int) -> None:
    num_frames = 48
    durations = write(tmp_path / f"a{suffix}", num_frames, fps)
    step = frames_skipped(tmp_path / f"a{suffix}", fps)
    assert len(durations) == -(-num_frames // step)
    if len(durations) > 1:
        assert min(durations) >= 20
    assert sum(durations) == pytest.approx(1000 * len(durations) * step / fps, abs=10)


def test_frames_are_dropped_evenly(tmp_path: Path) -> None:
    assert write(tmp_path / "a.gif", 12, 60) == [30, 40, 30, 30, 40, 30]
    (found,) = find_clips([tmp_path]).used
    greys = (found.read(range(6))[:, 0, 0, 0] * 12).round()
    assert greys.tolist() == [0, 2, 4, 6, 8, 10]


def test_video_files_keep_all_frames(tmp_path: Path) -> None:
    assert frames_skipped(tmp_path / "a.mp4", 240) == frames_skipped(tmp_path / "a", 240) == 1


def test_dropped_frames_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise ValueError("far enough")

    monkeypatch.setattr(cli.animate, "find_base", stop)
    arguments = {"base": "b", "motion": "m", "image": "i", "prompt": "p"}
    said = []
    for name, fps in (("a.gif", 60), ("a.gif", 50), ("a.mp4", 60)):
        assert run_command("animate", {**arguments, "out": tmp_path / name, "fps": fps}) == 2
        said.append(capsys.readouterr().err)
    assert (
        "at most 50 frames of a .gif per second: of 2 one is written, and the video lasts as long" in said[0]
    )
    assert "at most" not in said[1] + said[2]

"""`--twins FOLDER`: which file is whose twin, what is refused, and what is learned then."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from einops import rearrange
from PIL import Image
from torch import Tensor

from flash_pack.flash_modules.files.json_file import read_json
from flash_pack.flash_modules.files.video_files import as_picture
from flash_pack.flash_modules.training.clips import clip_hashes, find_clips
from flash_pack.tests.backends.command_line import cheap_counting, run_command, sentence_of
from flash_pack.tests.core.drawn_twins import drawn

Run = Callable[..., int]


def write_animation(path: Path, video_FCHW: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (as_picture(image_HWC) for image_HWC in rearrange(video_FCHW, "f c h w -> f h w c"))
    first.save(path, save_all=True, append_images=rest, duration=125, lossless=True)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two actions with clips, and folders with their twins: of one the negative, in another kind of file."""
    for action, ways in (("jump", {"a": 0, "b": 1}), ("run", {"a": 2})):
        for name, way in ways.items():
            write_animation(tmp_path / action / f"{name}.webp", drawn(way, 10 + way))
            twin_FCHW = drawn(way, 20 + way) if way else 1 - drawn(way, 10)
            write_animation(tmp_path / "twins" / action / f"{name}.{'webp' if way else 'png'}", twin_FCHW)
    return tmp_path


@pytest.fixture
def preview(files: Path) -> Run:
    folders = {"clips": [files / "jump", files / "run"], "size": 32, "frames": 4, "out": files / "sheet.png"}

    def run(*twins: str) -> int:
        return run_command("preview", {**folders, "twins": [files / "twins" / name for name in twins]})

    return run


def test_twins_are_found_by_the_names_of_clips(preview: Run, files: Path) -> None:
    assert preview("jump", "run") == 0
    with Image.open(files / "sheet.png") as sheet:
        pixels = np.asarray(sheet).astype(int)[:, 8 : 8 + 4 * 96]
    original, twin = pixels[26 : 26 + 96], pixels[26 + 96 : 26 + 192]
    assert np.abs(original + twin - 255).max() <= 2
    assert original.std() > 10


def test_folders_of_twins_are_as_many_as_those_of_clips(
    preview: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preview("jump") == 2
    said = sentence_of(capsys.readouterr().err)
    assert "There are 1 folders of twins for 2 of clips: give --twins as often as --clips" in said


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "there is no file of its name"), (b"", "the file is empty (0 bytes)")]
)
def test_a_clip_without_a_twin_is_refused(
    preview: Run, files: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, reason: str
) -> None:
    (files / "twins" / "jump" / "b.webp").unlink()
    if data is not None:
        (files / "twins" / "jump" / "b.webp").write_bytes(data)
    assert preview("jump", "run") == 2
    said = sentence_of(capsys.readouterr().err)
    assert f"b.webp has no twin in the folder 'jump' ({reason}): put one there, or take the clip away" in said


def test_twins_of_other_clips_are_refused(
    preview: Run, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_animation(files / "twins" / "jump" / "b.webp", drawn(4, 21))
    assert preview("jump", "run") == 2
    assert "The twin of b.webp does not show the clip's motion" in sentence_of(capsys.readouterr().err)


def test_a_run_learns_from_them_and_is_known_by_them(
    training_files: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "base": training_files / "base",
        "motion": training_files / "motion.safetensors",
        "clips": files / "jump",
        "out": "jump",
        "runs": files / "runs",
        "frames": 3,
        "size": 16,
        "steps": 1,
        "pool": 1,
        "device": "cpu",
    }
    train = partial(run_command, "train")
    with cheap_counting():
        assert train({**arguments, "twins": files / "twins" / "jump"}) == 0
        told = read_json(files / "runs" / "jump" / "settings.json")["clips"]
        hashes = clip_hashes(find_clips([files / "twins" / "jump"]).used)
        assert [one["twin_sha256"] for one in told] == hashes
        assert train(arguments) == 2
        assert "twin_sha256: " in sentence_of(capsys.readouterr().err)
        assert train({**arguments, "twins": files / "twins" / "jump", "out": "b", "variant": 1}) == 2
        assert "have twins, but training without pairs" in sentence_of(capsys.readouterr().err)
        assert not (files / "runs" / "b").exists()

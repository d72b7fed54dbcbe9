"""The demo: from clips to a page, and on from where it was stopped."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from actors.__main__ import main
from actors.studies import demo
from actors.studies.demo import Demo
from actors.world.clips import clip_video
from flash_modules.cli import main as product
from flash_modules.cli import train

WORDS = ["demo", "--action", "arm wave", "--steps", "2"]


@pytest.fixture
def small_world(tiny_base: Path, tiny_details: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained base and decoder, few clips and pictures, two sampling steps; the result is the output."""
    monkeypatch.setattr(demo, "FOLDER", tiny_base)
    monkeypatch.setattr(demo, "MOTION", tiny_base / "motion.safetensors")
    monkeypatch.setattr(demo, "DETAILS", tiny_details)
    monkeypatch.setattr(demo, "SAMPLER", replace(demo.SAMPLER, steps=2))
    monkeypatch.setattr(demo, "NUM_CLIPS", 2)
    monkeypatch.setattr(demo, "NUM_PICTURES", 1)
    monkeypatch.setattr(demo, "NUM_TRUTHS", 2)
    monkeypatch.setattr(demo, "POOL", 1)
    monkeypatch.setattr(train, "check_memory", lambda training: None)  # counting takes seconds each time
    return tmp_path


def test_a_page_comes_out_and_again_the_same(small_world: Path) -> None:
    pages = []
    for name in ("one", "two"):
        out = small_world / name
        assert main([*WORDS, "--out", str(out)]) == 0
        pages.append((out / "index.html").read_text().replace(str(out), "OUT"))
        with Image.open(out / "demo.webp") as overview:
            assert (overview.size, overview.n_frames) == ((4 * 96, 96), 8)
    assert pages[0] == pages[1]
    text = pages[0]
    assert text.count("<img") == 4 + 2  # a picture, its truth, before, after; two clips
    assert "joint error, % ↓" in text
    assert "Frame 0 is exactly the picture." in text
    assert text.count("python -m flash_modules animate") == 2
    assert "<polyline" in text


def test_what_is_done_is_not_done_again(small_world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*WORDS, "--out", str(small_world)]
    begun = []

    def stops_at_the_third(arguments: Sequence[str]) -> int:
        begun.append(arguments[0])
        return 130 if len(begun) == 3 else product(arguments)

    monkeypatch.setattr(demo, "product", stops_at_the_third)
    assert main(words) == 130
    assert not (small_world / "index.html").exists()
    assert main(words) == 0
    assert main(words) == 0
    assert begun == ["train", "animate", "animate", "animate"]


def test_learning_that_was_stopped_is_not_taken_for_done(
    small_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def writes_early(arguments: Sequence[str]) -> int:
        """As `train` does after Ctrl-C: an action file and exit code 0, before the last step."""
        fewer = [*arguments]
        fewer[fewer.index("--steps") + 1] = "1"
        return product(fewer)

    monkeypatch.setattr(demo, "product", writes_early)
    assert main([*WORDS, "--out", str(small_world)]) == 130
    monkeypatch.setattr(demo, "product", product)
    assert main([*WORDS, "--out", str(small_world)]) == 0


def test_a_command_that_fails_ends_it(
    small_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "product", lambda arguments: 2)
    assert main([*WORDS, "--out", str(small_world)]) == 2
    assert "The command ended with 2: see above." in capsys.readouterr().err


def test_pictures_are_of_others_than_the_clips_and_the_last_in_an_unseen_style(tmp_path: Path) -> None:
    shown = Demo(tmp_path, "soccer shoot", 1, 0)
    looks = [subject.truths[0].look for subject in shown.subjects]
    assert not {clip.look for clip in shown.clips} & set(looks)
    assert [look.held_out for look in looks] == [False, False, True]
    assert looks[-1].style == "alien"
    shown.write_inputs()
    for subject in shown.subjects:
        picture = torch.tensor(list(Image.open(tmp_path / f"{subject.name}.png").tobytes()))
        assert torch.equal(picture.view(96, 96, 3), (clip_video(subject.truths[0])[0] * 255).long())

"""Captions that are too long are named all at once, by file: before training, and in the preview."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.backends.diffusers.sd15.load.captions import (
    least_tokens,
    length_note,
    token_counter,
)
from flash_pack.tests.backends.command_line import run_command
from flash_pack.tests.backends.small_models import small_motion
from flash_pack.tests.core.odd_clips import bar_clip

LONG = "a small bar goes slowly to the right, and " * 12


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Four clips, of which two have captions that are far too long."""
    for name in ("a", "b", "c", "d"):
        bar_clip(tmp_path / "clips" / f"{name}.mp4", 6)
    for name, caption in {"a": LONG, "b": "a bar", "d": LONG + "on"}.items():
        (tmp_path / "clips" / f"{name}.txt").write_text(caption)
    return tmp_path / "clips"


def test_preview_names_all_captions_that_are_too_long(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a tokenizer: each word and sign is a token at least."""
    assert run_command("preview", {"clips": clips, "size": 32, "frames": 3, "out": tmp_path / "s.png"}) == 0
    notes = [line.strip() for line in capsys.readouterr().out.splitlines() if " tokens" in line]
    said = "tokens, and Stable Diffusion 1.5 reads 75: shorten it"
    assert notes == [
        f"! a.txt: its caption has at least 120 {said}",
        f"! d.txt: its caption has at least 121 {said}",
    ]


def test_preview_counts_tokens_with_a_tokenizer(
    clips: Path, tmp_path: Path, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This one knows single letters, which the tests' tokenizer makes tokens of."""
    (clips / "b.txt").write_text("abcdefgh " * 10)
    arguments = {"clips": clips, "size": 32, "frames": 3, "out": tmp_path / "s.png"}
    assert run_command("preview", {**arguments, "tokenizer": tokenizer_folder}) == 0
    notes = [line.strip() for line in capsys.readouterr().out.splitlines() if " tokens" in line]
    assert len(notes) == 3
    assert notes[1] == "! b.txt: its caption has 80 tokens, and Stable Diffusion 1.5 reads 75: shorten it"
    assert run_command("preview", {**arguments, "tokenizer": tmp_path}) == 2
    assert f"error: There is no tokenizer in {tmp_path}" in capsys.readouterr().err


def test_the_least_number_is_never_too_many(tokenizer_folder: Path) -> None:
    count, draw = token_counter(tokenizer_folder), random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice("ab c,.'1!  -") for _ in range(60))
        assert least_tokens(text) <= count(text), text


def test_names_that_are_no_text_are_counted_too(tokenizer_folder: Path) -> None:
    assert token_counter(tokenizer_folder)("a\udcff b") == token_counter(tokenizer_folder)("a? b")
    assert length_note("a\udcff b " * 9, None) is None


@pytest.mark.parametrize(
    ("caption", "note"),
    [
        ("a person is running", None),
        ("word " * 75, None),
        ("word " * 76, "its caption has at least 76 tokens"),
        (
            "extraordinarily " * 40,
            "its caption may have over 75 tokens: give --tokenizer to have them counted",
        ),
        ("女孩在跑" * 20, "its caption may have over 75 tokens"),
    ],
)
def test_notes_say_what_is_known(caption: str, note: str | None) -> None:
    said = length_note(caption, None)
    assert (said or "").startswith(note or "")
    assert bool(said) == bool(note)


@pytest.fixture
def train(base_folder: Path, clips: Path, tmp_path: Path) -> Callable[..., int]:
    save_file(small_motion().tensors, tmp_path / "motion.safetensors")

    def run(**changes: object) -> int:
        arguments = {"base": base_folder, "motion": tmp_path / "motion.safetensors", "clips": clips}
        arguments |= {"out": "jump", "runs": tmp_path / "runs", "frames": 3, "size": 16, "device": "cpu"}
        return run_command("train", {**arguments, **changes}, "--dry-run")

    return run


def test_training_names_all_captions_that_are_too_long(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.train, "action_training", None)  # it is not reached
    assert train() == 2
    said = capsys.readouterr().err
    assert "error: Captions have more than the 75 tokens that the base reads. Shorten:\n" in said
    assert "\n  clips/a.txt: " in said
    assert "\n  clips/d.txt: " in said
    assert "b.txt" not in said


def test_prompts_that_are_too_long_are_named_by_their_words(
    train: Callable[..., int], clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for caption in clips.glob("*.txt"):
        caption.unlink()
    assert train(prompt=LONG) == 2
    assert f"\n  the prompt '{LONG[:40]}': " in capsys.readouterr().err

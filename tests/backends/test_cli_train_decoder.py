"""`python -m flash_modules train-decoder`: from clips to a decoder that mends; going on; mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from flash_pack.flash_modules.backends.diffusers.sd15 import load_vae
from flash_pack.flash_modules.cli import needs
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.decoder_file import check_vae, read_detail_decoder
from flash_pack.flash_modules.flash.training.detail_training import DetailTraining
from flash_pack.tests.backends.command_line import run_command, sentence_of


@pytest.fixture
def train(training_files: Path, turning_clips: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command with arguments that work, except for those that are given; None leaves one out."""

    def run(*flags: str, **changes: object) -> int:
        arguments = {
            "vae": training_files / "base",
            "clips": turning_clips,
            "out": "details",
            "runs": tmp_path / "runs",
            "frames": 3,
            "size": 64,
            "steps": 2,
            "width": 4,
            "lr": 1e-3,
            "device": "cpu",
            **changes,
        }
        return run_command("train-decoder", arguments, *flags)

    return run


def learned(tmp_path: Path, name: str, step: int) -> dict[str, torch.Tensor]:
    tensors, _ = read_tensors(tmp_path / "runs" / name / f"checkpoint-{step}" / "trainable.safetensors")
    return tensors


def test_a_run_writes_a_decoder_for_its_vae(
    train: Callable[..., int], training_files: Path, tmp_path: Path
) -> None:
    assert train() == 0
    weights = read_detail_decoder(tmp_path / "runs" / "details" / "details.safetensors")
    vae = load_vae(training_files / "base")
    check_vae(weights, vae.state_dict())
    assert weights.config.channels == tuple(vae.config.block_out_channels)
    assert weights.config.width == 4
    assert weights.tensors["levels.0.fuse.conv.weight"].any()
    assert weights.header["flash.steps"] == "2"
    assert json.loads(weights.header["flash.data"])["n_clips"] == 2
    assert json.loads(weights.header["flash.card"])["intended_use"].startswith("Decoding videos")
    assert str(tmp_path) not in json.dumps(dict(weights.header))


def test_a_run_in_two_sittings_is_a_run_in_one(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(out="whole", steps=3) == 0
    assert train(out="two", steps=1) == 0
    assert train(out="two", steps=3) == 0
    whole, two = (learned(tmp_path, name, 3) for name in ("whole", "two"))
    assert whole.keys() == two.keys()
    assert all(torch.equal(whole[name], two[name]) for name in whole)


@pytest.mark.parametrize(("without", "gone"), [("warping", ".warp."), ("attention", ".attn.")])
def test_a_branch_can_be_left_out(train: Callable[..., int], tmp_path: Path, without: str, gone: str) -> None:
    assert train(steps=1, without=without) == 0
    weights = read_detail_decoder(tmp_path / "runs" / "details" / "details.safetensors")
    assert not any(gone in name for name in weights.tensors)


def test_pictures_on_the_way_change_nothing(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(out="plain") == 0
    assert train(out="watched", **{"sample-steps": 1}) == 0
    with Image.open(tmp_path / "runs" / "watched" / "sample-000002.png") as sheet:
        assert sheet.size == (2 * 64, 4 * 64)  # two frames; true, VAE, ours, difference
    plain, watched = (learned(tmp_path, name, 2) for name in ("plain", "watched"))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vae": "/nowhere"}, "There is no VAE at /nowhere"),
        ({"vae": __file__}, "neither a safetensors nor a PyTorch file"),
        ({"clips": "/nowhere"}, "There is no folder /nowhere"),
        ({"out": "../away"}, "must be letters, digits"),
        ({"frames-per-step": 3}, "`frames` of a step must lie between 1 and 2"),
        ({"width": 0}, "`width` must lie between 1 and 1024"),
        ({"size": 12}, "`size` must be a multiple of 8"),
        ({"steps": 0}, "`steps` must be 1 or more"),
        ({"seed": -1}, "--seed must lie between"),
        ({"device": "abacus"}, "'abacus' cannot be used"),
    ],
)
def test_mistakes_are_one_sentence(
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    sentence: str,
) -> None:
    assert train(**changes) == 2
    assert sentence in sentence_of(capsys.readouterr().err)
    assert not list(tmp_path.glob("runs/*/checkpoint-*"))


def test_full_memory_is_told_with_what_helps(
    train: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(DetailTraining, "run", fill)
    assert train() == 2
    said = sentence_of(capsys.readouterr().err)
    assert "is full; about " in said
    assert "Close them, or: give `--frames-per-step 1`, which needs about" in said


def test_what_does_not_fit_is_refused_before_anything_is_written(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda device: 1000)
    assert train() == 2
    said = sentence_of(capsys.readouterr().err)
    assert "even `--size 64 --frames-per-step 1` needs about" in said
    assert not (tmp_path / "runs").exists()

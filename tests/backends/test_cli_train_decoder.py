"""`python -m flash_modules train-decoder`: from clips to a decoder that mends; going on; mistakes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from flash_pack.flash_modules.backends.diffusers.sd15 import load_vae
from flash_pack.flash_modules.backends.diffusers.sd15.train.detail import DetailTraining, DetailTrainingConfig
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.decoder_file import SIGNATURE, check_vae, read_detail_decoder
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.original_names import as_conv, vae_name
from flash_pack.tests.backends.small_models import small_vae


def write_clip(path: Path, angle: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.linear_gradient("L").rotate(angle + 12 * i).resize((64, 64)) for i in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "turn"
    for i in range(2):
        write_clip(folder / f"{i}.gif", 90 * i)
    return folder


@pytest.fixture
def train(base_folder: Path, clips: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command with arguments that work, except for those that are given; None leaves one out."""

    def run(*flags: str, **changes: object) -> int:
        arguments = {
            "vae": base_folder,
            "clips": clips,
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


@pytest.fixture
def training(base_folder: Path, clips: Path) -> DetailTraining:
    config = DetailTrainingConfig(
        size=32,
        width=8,
        sampling=SamplingConfig(num_frames=4),
        loop=LoopConfig(steps=30, learning_rate=3e-3),
    )
    used = find_clips([clips]).used
    return DetailTraining(load_vae(base_folder), "small", used, config, torch.device("cpu"))


def learned(tmp_path: Path, name: str, step: int) -> dict[str, torch.Tensor]:
    tensors, _ = read_tensors(tmp_path / "runs" / name / f"checkpoint-{step}" / "trainable.safetensors")
    return tensors


def test_a_run_writes_a_decoder_for_its_vae(
    train: Callable[..., int], base_folder: Path, tmp_path: Path
) -> None:
    assert train() == 0
    weights = read_detail_decoder(tmp_path / "runs" / "details" / "details.safetensors")
    vae = load_vae(base_folder)
    check_vae(weights, vae.state_dict())
    assert weights.config.channels == tuple(vae.config.block_out_channels)
    assert weights.config.width == 4
    assert weights.tensors["levels.0.fuse.conv.weight"].any()
    assert weights.header["flash.steps"] == "2"
    assert json.loads(weights.header["flash.data"])["n_clips"] == 2
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


def test_training_mends(training: DetailTraining, tmp_path: Path) -> None:
    """Some steps at a high rate bring the loss of parts that were trained on down; the VAE stays."""
    before = {name: weight.clone() for name, weight in training.vae.state_dict().items()}
    with torch.no_grad():
        first = sum(float(training.loss(number)) for number in range(4))
    training.run(RunFolder(tmp_path, "run", training.settings(1)))
    with torch.no_grad():
        last = sum(float(training.loss(number)) for number in range(4))
    assert last < 0.9 * first
    assert all(torch.equal(weight, before[name]) for name, weight in training.vae.state_dict().items())


def test_parts_are_functions_of_their_number(training: DetailTraining) -> None:
    once, again, other = (training.loss.draw(number) for number in (5, 5, 6))
    assert torch.equal(once.distorted_FCHW, again.distorted_FCHW)
    assert not torch.equal(once.distorted_FCHW, other.distorted_FCHW)
    assert once.first_1CHW.shape == (1, 3, 32, 32)
    assert once.true_FCHW.shape == once.distorted_FCHW.shape == (2, 3, 32, 32)
    assert not torch.equal(once.true_FCHW, once.distorted_FCHW)


def test_vaes_are_read_from_every_kind_of_place(base_folder: Path, tmp_path: Path) -> None:
    names = {vae_name(n): as_conv(n, t).clone() for n, t in small_vae().state_dict().items()}
    save_file(names, tmp_path / "vae.safetensors")
    save_file({f"first_stage_model.{name}": t for name, t in names.items()}, tmp_path / "model.safetensors")
    wanted = small_vae().state_dict()
    for place in (
        base_folder,
        base_folder / "vae",
        tmp_path / "vae.safetensors",
        tmp_path / "model.safetensors",
    ):
        found = load_vae(place).state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in SIGNATURE)


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
    assert "is full with 2 frames of 64 x 64 in a step: give `--frames-per-step 1`" in capsys.readouterr().err

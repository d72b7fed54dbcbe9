"""Training of the Detail Enhancement Decoder on diffusers' VAE."""

from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.backends.diffusers.sd15 import load_vae
from flash_pack.flash_modules.backends.diffusers.sd15.train.detail import DetailTraining, DetailTrainingConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig


@pytest.fixture
def training(training_files: Path, turning_clips: Path) -> DetailTraining:
    config = DetailTrainingConfig(
        size=32,
        width=8,
        sampling=SamplingConfig(num_frames=4),
        loop=LoopConfig(steps=30, learning_rate=3e-3),
    )
    used = find_clips([turning_clips]).used
    return DetailTraining(load_vae(training_files / "base"), "small", used, config, torch.device("cpu"))


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

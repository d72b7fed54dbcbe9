"""Training of the Detail Enhancement Decoder on diffusers' VAE."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.backends.diffusers.sd15 import load_vae
from flash_pack.flash_modules.backends.diffusers.sd15.train.detail import DiffusersVae, detail_training
from flash_pack.flash_modules.flash.distortion import DistortionConfig
from flash_pack.flash_modules.flash.training.detail_training import DetailTraining, DetailTrainingConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig

NO_DISTORTION = DistortionConfig(kernels=(1,), coloured=0.0, elastic=(0.0, 0.0))


@pytest.fixture
def training(training_files: Path, turning_clips: Path) -> DetailTraining[DiffusersVae]:
    config = DetailTrainingConfig(
        size=32,
        width=8,
        sampling=SamplingConfig(num_frames=4),
        loop=LoopConfig(steps=30, learning_rate=3e-3),
    )
    used = find_clips([turning_clips]).used
    return detail_training(load_vae(training_files / "base"), "small", used, config, torch.device("cpu"))


def test_training_mends(training: DetailTraining[DiffusersVae], tmp_path: Path) -> None:
    """Some steps at a high rate bring the loss of parts that were trained on down; the VAE stays."""
    before = {name: weight.clone() for name, weight in training.host.vae.state_dict().items()}
    with torch.no_grad():
        first = sum(float(training.loss(number)) for number in range(4))
    training.run(RunFolder(tmp_path, "run", training.settings(1)))
    with torch.no_grad():
        last = sum(float(training.loss(number)) for number in range(4))
    assert last < 0.9 * first
    assert all(torch.equal(weight, before[name]) for name, weight in training.host.vae.state_dict().items())


def test_the_loss_is_the_mean_squared_error_to_the_true_frames(
    training: DetailTraining[DiffusersVae],
) -> None:
    drawn = training.loss.draw(3)
    with torch.no_grad():
        mended_FCHW = training.rebuild(drawn.distorted_FCHW, drawn.first_1CHW)
        errors = (mended_FCHW - drawn.true_FCHW).flatten().tolist()
        assert float(training.loss(3)) == pytest.approx(sum(e**2 for e in errors) / len(errors), rel=1e-4)


def test_details_come_from_the_true_first_frame(training: DetailTraining[DiffusersVae]) -> None:
    """What the decoder refers to is a frame of the clip as it is, and what it mends is not."""
    seen: list[torch.Tensor] = []
    rebuild = training.loss.rebuild

    def watched(distorted_FCHW: torch.Tensor, first_1CHW: torch.Tensor) -> torch.Tensor:
        seen.append(first_1CHW)
        return rebuild(distorted_FCHW, first_1CHW)

    with torch.no_grad():
        replace(training.loss, rebuild=watched)(3)
    undistorted = replace(training.loss, distortion=NO_DISTORTION).draw(3)
    assert torch.equal(seen[0], undistorted.first_1CHW)
    assert torch.equal(training.loss.draw(3).true_FCHW, undistorted.true_FCHW)
    assert not torch.allclose(training.loss.draw(3).distorted_FCHW, undistorted.true_FCHW, atol=0.02)


def test_parts_are_functions_of_their_number(training: DetailTraining[DiffusersVae]) -> None:
    once, again, other = (training.loss.draw(number) for number in (5, 5, 6))
    assert torch.equal(once.distorted_FCHW, again.distorted_FCHW)
    assert not torch.equal(once.distorted_FCHW, other.distorted_FCHW)
    assert once.first_1CHW.shape == (1, 3, 32, 32)
    assert once.true_FCHW.shape == once.distorted_FCHW.shape == (2, 3, 32, 32)
    assert not torch.equal(once.true_FCHW, once.distorted_FCHW)

"""The memory that training a detail decoder takes, and the settings that need less."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder
from flash_pack.flash_modules.flash.training.detail_needs import (
    detail_memory,
    details_that_fit,
    frugal_details,
)
from flash_pack.flash_modules.flash.training.detail_training import DetailTraining, DetailTrainingConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.small_clips import write_folder


class TinyVae:
    """Fulfils `DetailHost` with one level and without a weight; latents are averages of 4 x 4 pixels."""

    device = torch.device("cpu")
    num_bytes = 1000
    vae_name = "tiny"
    signature: Mapping[str, Tensor] = MappingProxyType({})
    channels = (3,)

    def encode(self, pixels_FCHW: Tensor) -> Tensor:
        return avg_pool2d(pixels_FCHW, 4)

    def references(self, pixels_1CHW: Tensor) -> Sequence[Tensor]:
        return [pixels_1CHW]

    def decode(
        self, decoder: DetailDecoder, latents_FCHW: Tensor, references: Sequence[Tensor], strength: float
    ) -> Tensor:
        plain_FCHW = interpolate(latents_FCHW, scale_factor=4)
        return 2 * decoder.enhance(0, plain_FCHW, references[0], strength) - 1


Make = Callable[..., DetailTraining[TinyVae]]


@pytest.fixture
def training(tmp_path: Path) -> Make:
    write_folder(tmp_path / "jump" / "a", 2)
    clips = find_clips([tmp_path / "jump"]).used

    def make(size: int = 64, frames: int = 2) -> DetailTraining[TinyVae]:
        config = DetailTrainingConfig(size=size, frames=frames, width=4)
        return DetailTraining(TinyVae(), clips, config)

    return make


def test_the_settings_come_first_then_fewer_frames_then_smaller_sizes(training: Make) -> None:
    assert list(frugal_details(training(512, 3))) == [(512, 3), (512, 2), (512, 1), (384, 1), (256, 1)]
    assert list(frugal_details(training(64, 1))) == [(64, 1)]


def test_memory_is_that_of_weights_averages_and_a_step(training: Make) -> None:
    made = training()
    learning = 4 * sum(weight.numel() for weight in made.decoder.parameters())
    for size, frames in ((64, 2), (128, 2), (64, 1)):
        step = made.cost(size, frames).peak_bytes
        assert step > 2 * learning
        assert detail_memory(made, size, frames) == 1000 + 3 * learning + step
    assert detail_memory(made) == detail_memory(made, 64, 2)


def test_the_nearest_settings_that_fit_are_found(training: Make) -> None:
    made = training(384, 3)
    for size, frames in ((384, 3), (384, 2), (384, 1), (256, 1)):
        needed = detail_memory(made, size, frames)
        near = details_that_fit(made, needed)
        assert (near.size, near.frames, near.needed, near.fits) == (size, frames, needed, True)
    least = details_that_fit(made, needed - 1)
    assert (least.size, least.frames, least.fits) == (256, 1, False)

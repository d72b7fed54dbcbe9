"""Distortions of clips: what is blurred, which regions change colour, how far pixels move."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.augment import blur
from flash_pack.flash_modules.flash.distortion import DistortionConfig, bend, distort, kernel_at

STRAIGHT = DistortionConfig(elastic=(0.0, 0.0))
SHARP = replace(STRAIGHT, kernels=(1,))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def video_FCHW() -> Tensor:
    return 0.2 + 0.6 * torch.rand(4, 3, 64, 96, generator=generator(9))


def test_most_regions_change_colour_and_the_others_are_only_blurred(video_FCHW: Tensor) -> None:
    config = replace(STRAIGHT, kernels=(41,))  # 5 pixels at this size
    distorted_FCHW = distort(video_FCHW, config, generator())
    same_FHW = (distorted_FCHW - blur(video_FCHW, 5)).abs().amax(dim=1) < 1e-5
    whole = same_FHW.unfold(1, 8, 8).unfold(2, 12, 12).flatten(3).all(dim=-1).flatten(1)
    assert whole.sum(dim=1).tolist() == [64 - 51] * 4  # of 8 x 8 regions 80 % change
    assert not torch.equal(whole[0], whole[1])


@pytest.mark.parametrize(
    ("kernel", "size", "there"),
    [(3, 512, 3), (9, 512, 9), (9, 256, 5), (9, 128, 3), (7, 128, 1), (9, 1024, 17)],
)
def test_smaller_pictures_are_blurred_less(kernel: int, size: int, there: int) -> None:
    assert kernel_at(kernel, size) == there


@pytest.mark.parametrize(("coloured", "changed"), [(0.0, False), (1.0, True)])
def test_all_regions_or_none(video_FCHW: Tensor, coloured: float, changed: bool) -> None:
    distorted_FCHW = distort(video_FCHW, replace(SHARP, coloured=coloured), generator())
    moved_FHW = (distorted_FCHW - video_FCHW).abs().amax(dim=1) > 1e-5
    assert bool(moved_FHW.float().mean() > 0.95) == changed
    assert bool(moved_FHW.any()) == changed


def test_colours_stay_in_the_papers_ranges() -> None:
    grey_FCHW = torch.full((200, 3, 8, 8), 0.5)
    config = replace(SHARP, coloured=1.0, regions=1)
    brightness_F = distort(grey_FCHW, config, generator()).mean(dim=(1, 2, 3)) / 0.5
    assert 0.7 - 1e-4 <= brightness_F.min() < 0.75
    assert 1.25 < brightness_F.max() <= 1.3 + 1e-4


@pytest.mark.parametrize("alpha", [20.0, 10.0])
def test_bends_are_as_large_as_torchvisions(alpha: float) -> None:
    """On a ramp the change of a pixel is how far away it was taken from.

    Uniform noise of deviation 3**-0.5, smoothed by a Gaussian of 5 pixels, times alpha / 2 pixels.
    """
    size = 512
    ramp_1CHW = (torch.arange(size) + 0.5).div(size).expand(1, 3, size, size).clone()
    bent_1CHW = bend(ramp_1CHW, replace(DistortionConfig(), elastic=(alpha, alpha)), generator())
    pixels_HW = (bent_1CHW - ramp_1CHW)[0, 0, 32:-32, 32:-32] * size
    assert float(pixels_HW.square().mean().sqrt()) == pytest.approx(
        alpha / 2 * 3**-0.5 / (2 * math.pi**0.5 * 5), rel=0.05
    )
    assert float(pixels_HW.mean().abs()) < 0.05


def test_each_frame_bends_in_its_own_way() -> None:
    video_FCHW = torch.rand(1, 3, 64, 64, generator=generator()).expand(2, -1, -1, -1)
    bent_FCHW = bend(video_FCHW, replace(DistortionConfig(), elastic=(20.0, 20.0)), generator())
    assert not torch.equal(bent_FCHW[0], bent_FCHW[1])


def test_the_same_generator_gives_the_same_and_pixels_stay_in_range(video_FCHW: Tensor) -> None:
    before = video_FCHW.clone()
    once, again, other = (distort(video_FCHW, DistortionConfig(), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert once.shape == video_FCHW.shape
    assert 0 <= once.min() <= once.max() <= 1
    assert torch.equal(video_FCHW, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": (4,)}, "`kernels` must be odd"),
        ({"kernels": ()}, "`kernels` must be odd"),
        ({"coloured": 1.5}, "`coloured` must lie between 0 and 1"),
        ({"elastic": (5.0, 1.0)}, "`elastic` must be two rising numbers"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistortionConfig(**settings)

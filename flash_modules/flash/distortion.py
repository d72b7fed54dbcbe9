"""Distorted clips, for the Detail Enhancement Decoder to mend (FLASH, arXiv:2503.00276, A2.3, A3.2)."""

import math
from dataclasses import dataclass

import torch
from kornia.geometry.transform import elastic_transform2d
from torch import Tensor
from torch.nn.functional import interpolate

from .augment import AugmentConfig, blur, draw_augmentation, kernel_at, recolour


@dataclass(frozen=True, kw_only=True)
class DistortionConfig:
    """How far clips are distorted."""

    kernels: tuple[int, ...] = (3, 5, 7, 9)
    """Pixels of the blur, in a picture of 512; one of another size is blurred in proportion (not in the
    paper). The paper says 3 to 10; a kernel has a middle, so it is odd."""
    colour: float = 0.3
    """Brightness, contrast and saturation change by up to this part."""
    hue: float = 0.2
    """Hue turns by up to this part of the circle, both ways."""
    coloured: float = 0.8
    """Part of the regions whose colours change."""
    regions: int = 8
    """Regions on a side; drawn anew for each frame. Not in the paper."""
    elastic: tuple[float, float] = (1.0, 20.0)
    """Strength of the elastic transformation, as torchvision's ElasticTransform counts it."""
    elastic_sigma: float = 5.0
    """Pixels by which its displacements are smoothed. Not in the paper: torchvision's."""

    def __post_init__(self) -> None:
        if not self.kernels or any(k < 1 or k % 2 == 0 for k in self.kernels):
            raise ValueError(f"`kernels` must be odd numbers of pixels, but they are {self.kernels}.")
        if not 0.0 <= self.coloured <= 1.0:
            raise ValueError(f"`coloured` must lie between 0 and 1, but it is {self.coloured}.")
        for name in ("colour", "hue", "elastic_sigma"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be a number from 0 on, but it is {getattr(self, name)}.")
        if not 0.0 <= self.elastic[0] <= self.elastic[1] < math.inf:
            raise ValueError(f"`elastic` must be two rising numbers from 0 on, but it is {self.elastic}.")


def distort(video_FCHW: Tensor, config: DistortionConfig, generator: torch.Generator) -> Tensor:
    """The clip blurred, with other colours in most regions, and bent; RGB in [0, 1].

    Blur and strength of bending are drawn for the clip; colours, regions and bends for each frame.
    """
    kernel = config.kernels[int(torch.randint(len(config.kernels), (), generator=generator))]
    blurred_FCHW = blur(video_FCHW, kernel_at(kernel, min(video_FCHW.shape[-2:])))
    frames = [_recolour_regions(frame_1CHW, config, generator) for frame_1CHW in torch.split(blurred_FCHW, 1)]
    return bend(torch.cat(frames), config, generator)


def _recolour_regions(frame_1CHW: Tensor, config: DistortionConfig, generator: torch.Generator) -> Tensor:
    colours = draw_augmentation(AugmentConfig(colour=config.colour, hue=config.hue), generator).colours
    order = torch.randperm(config.regions**2, generator=generator)
    chosen = order < round(config.coloured * config.regions**2)
    mask_11HW = interpolate(
        chosen.float().view(1, 1, config.regions, config.regions), frame_1CHW.shape[-2:], mode="nearest"
    )
    return torch.where(mask_11HW.to(frame_1CHW) > 0, recolour(frame_1CHW, colours), frame_1CHW)


def bend(video_FCHW: Tensor, config: DistortionConfig, generator: torch.Generator) -> Tensor:
    """Every pixel taken from a smoothly random place nearby: torchvision's ElasticTransform, by kornia.

    At strength 20 and 512 pixels it is 0.35 pixels on average.
    """
    frames, _, height, width = video_FCHW.shape
    low, high = config.elastic
    alpha = low + (high - low) * float(torch.rand((), generator=generator))
    noise_F2HW = 2 * torch.rand(frames, 2, height, width, generator=generator) - 1
    kernel = int(8 * config.elastic_sigma) + 1
    kernel -= 1 - kernel % 2
    bent_FCHW = elastic_transform2d(
        video_FCHW,
        noise_F2HW.to(video_FCHW),
        (kernel, kernel),
        (config.elastic_sigma, config.elastic_sigma),
        (alpha / width, alpha / height),
        padding_mode="reflection",
    )
    return bent_FCHW.clamp(0, 1)

"""Pictures as latents by a fixed linear code: the lowest cosines of each patch. Nothing of it is learned."""

import math
from functools import cache

import torch
from einops import einsum, rearrange
from torch import Tensor

SIDE = 8
"""Pixels of a patch's side, as of CogVideoX's VAE."""
CHANNELS = 16
"""Of a latent: ten cosines of brightness, three of each of two colour differences."""

_COSINES = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0), (0, 3), (1, 2), (2, 1), (3, 0))
"""Half waves down and across a patch."""
_COLORS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
_DEVIATIONS = (2.4, 0.54, 0.58, 0.31, 0.27, 0.33, 0.21, 0.2, 0.18, 0.21, 1.28, 0.28, 0.34, 0.58, 0.14, 0.14)
"""Of each channel's coefficients in drawn clips."""


def encode(video_FCHW: Tensor) -> Tensor:
    """Latents (F, 16, H / 8, W / 8) of pictures in [0, 1]; their mean square in drawn clips is about 1.

    Coefficients are divided by the root of their deviation: what is coarse stays larger, as in pictures.
    """
    patches = rearrange(video_FCHW - 0.5, "f c (h y) (w x) -> f c h y w x", y=SIDE, x=SIDE)
    return einsum(patches, _code().to(video_FCHW), "f c h y w x, k c y x -> f k h w")


@cache
def _code() -> Tensor:
    """(16, 3, 8, 8)"""
    places = [
        *((0, cosine) for cosine in _COSINES),
        *((c, cosine) for c in (1, 2) for cosine in _COSINES[:3]),
    ]
    rows = [
        einsum(_unit(torch.tensor(_COLORS[color])), _wave(down), _wave(across), "c, y, x -> c y x")
        for color, (down, across) in places
    ]
    deviations = torch.tensor(_DEVIATIONS)
    return torch.stack(rows) / rearrange((deviations * deviations.mean()).sqrt(), "k -> k 1 1 1")


def _wave(half_waves: int) -> Tensor:
    return _unit(torch.cos(math.pi * half_waves * (torch.arange(SIDE) + 0.5) / SIDE))


def _unit(values: Tensor) -> Tensor:
    unit: Tensor = values / values.float().norm()
    return unit

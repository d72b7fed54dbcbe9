"""Videos of any size are measured at one area, where a pixel means the same for all."""

import math

import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor

AREA = 128 * 128
"""Pixels of a frame that is measured; larger ones are made smaller, smaller ones stay."""


def at_work_size(video_FHWC: Tensor, least: int = 1) -> Tensor:
    """Frames (F, C, H, W), brought down to AREA if they are larger; no side is below `least`."""
    frames_FCHW = rearrange(video_FHWC, "f h w c -> f c h w")
    h, w = frames_FCHW.shape[-2:]
    shrink = min(1.0, math.sqrt(AREA / (h * w)))
    size = (max(least, round(h * shrink)), max(least, round(w * shrink)))
    return nnf.interpolate(frames_FCHW, size=size, mode="area")

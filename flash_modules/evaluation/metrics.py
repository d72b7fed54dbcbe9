"""Measures of a video's pixels. Videos are FHWC in [0, 1], as in ComfyUI; pictures are one frame."""

import math
from dataclasses import dataclass

import torch.nn.functional as nnf
from einops import rearrange, reduce
from kornia.metrics import ssim as ssim_map
from torch import Tensor

_SSIM_WINDOW = 11


def psnr(video_FHWC: Tensor, truth_FHWC: Tensor) -> float:
    """Peak signal-to-noise ratio of the video in dB, 10 log10(1 / MSE). Higher is better; equal is inf."""
    _check_same_shape(video_FHWC, truth_FHWC)
    error = (video_FHWC - truth_FHWC).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def ssim(video_FHWC: Tensor, truth_FHWC: Tensor) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window of 11, sigma 1.5), mean over the frames.

    At most 1 (equal); higher is better.
    """
    _check_same_shape(video_FHWC, truth_FHWC)
    if min(video_FHWC.shape[1:3]) < _SSIM_WINDOW:
        raise ValueError(
            f"SSIM looks at windows of {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, but the frames are "
            f"{video_FHWC.shape[2]} x {video_FHWC.shape[1]}: measure larger ones."
        )
    video_FCHW, truth_FCHW = (rearrange(v_FHWC, "f h w c -> f c h w") for v_FHWC in (video_FHWC, truth_FHWC))
    return ssim_map(video_FCHW, truth_FCHW, _SSIM_WINDOW, padding="valid").mean().item()


@dataclass(frozen=True)
class Transition:
    """How the jump from frame 0 to frame 1 compares with those after it (mean absolute change of a pixel)."""

    ratio: float
    """First jump / mean later jump: about 1 is a smooth start, larger is worse. 1 if nothing ever changes."""
    difference: float
    """First jump - mean later jump, in [-1, 1]: about 0 is a smooth start, larger is worse."""


def first_frame_transition(video_FHWC: Tensor) -> Transition:
    """How much larger the jump after frame 0 is than the jumps after it. A still picture scores best here."""
    check_video(video_FHWC, at_least=3)
    first, *later = reduce((video_FHWC[1:] - video_FHWC[:-1]).abs(), "f h w c -> f", "mean").tolist()
    mean_later = sum(later) / len(later)
    ratio = first / mean_later if mean_later else math.inf if first else 1.0
    return Transition(ratio, first - mean_later)


def temporal_consistency(video_FHWC: Tensor) -> float:
    """Mean SSIM of consecutive frames, at most 1. Higher is steadier.

    A still picture scores best (FLASH, arXiv:2503.00276, A4.3), and larger motion scores lower: compare only
    videos that move about as much. Deviation: SSIM of pixels; the paper has the cosine of CLIP features.
    """
    check_video(video_FHWC, at_least=2)
    return ssim(video_FHWC[1:], video_FHWC[:-1])


def relative_sharpness(video_FHWC: Tensor, reference_1HWC: Tensor) -> Tensor:
    """Sharpness of every frame over the reference's: 1 = as sharp, below = blurred, above = noise or detail.

    Sharpness is the standard deviation of the Laplacian of the grey picture. It is a measure of fine contrast
    and not of beauty: noise and flicker raise it too, so that farther above 1 is no better.
    """
    check_reference(video_FHWC, reference_1HWC)
    return _fine_contrast(video_FHWC) / (_fine_contrast(reference_1HWC) + 1e-6)


def _fine_contrast(video_FHWC: Tensor) -> Tensor:
    grey_F1HW = reduce(video_FHWC, "f h w c -> f 1 h w", "mean")
    laplacian = grey_F1HW.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    return nnf.conv2d(grey_F1HW, laplacian[None, None]).flatten(1).std(dim=-1)


def check_video(video_FHWC: Tensor, *, at_least: int = 1) -> None:
    """Raise ValueError unless it is a video of so many frames or more."""
    if video_FHWC.ndim != 4 or video_FHWC.shape[-1] != 3 or not video_FHWC.is_floating_point():
        raise ValueError(
            "A video must be (frames, height, width, 3) with numbers from 0 to 1, but it is "
            f"{tuple(video_FHWC.shape)} of {str(video_FHWC.dtype).removeprefix('torch.')}."
        )
    if len(video_FHWC) < at_least:
        raise ValueError(f"This measure needs {at_least} frames or more; the video has {len(video_FHWC)}.")


def _check_same_shape(video_FHWC: Tensor, truth_FHWC: Tensor) -> None:
    check_video(video_FHWC)
    if video_FHWC.shape != truth_FHWC.shape:
        raise ValueError(
            f"The two videos have shapes {tuple(video_FHWC.shape)} and {tuple(truth_FHWC.shape)}: "
            "trim and resize one to the frames and the size of the other."
        )


def check_reference(video_FHWC: Tensor, reference_1HWC: Tensor) -> None:
    """Raise ValueError unless they are a video and one picture of its size."""
    check_video(video_FHWC)
    if reference_1HWC.shape != video_FHWC[:1].shape:
        raise ValueError(
            f"The reference has shape {tuple(reference_1HWC.shape)}, but one frame of the video has "
            f"{tuple(video_FHWC[:1].shape)}: give one picture of the video's size, for example its frame 0."
        )

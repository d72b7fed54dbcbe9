"""Optical flow of every pixel without a network: windowed least squares on a pyramid.

Lucas and Kanade (1981), iterated from coarse to fine (Bouguet 2001) at every pixel. Where nothing is to be
seen in a window, what the coarser level found stays.
"""

import torch
import torch.nn.functional as nnf
from einops import rearrange, reduce
from torch import Tensor

from .metrics import check_video
from .sizes import at_work_size

_COARSEST = 12
"""Pixels of the shorter side, below which no coarser level is made."""
_ROUNDS = 4
_FARTHEST = 1.0
"""Pixels that a level adds to what the coarser one found: more is a window that has lost its way."""
_FLATNESS = 3e-4
"""Square of a gradient, in grey levels from 0 to 1 a pixel, below which a window counts as flat."""


def dense_flow(video_FHWC: Tensor) -> Tensor:
    """Flow (F - 1, 2, h, w): pixels (x, y) that each pixel moves until the next frame, at the work size.

    The video is first brought down to the area of 128 x 128 (`at_work_size`).
    """
    check_video(video_FHWC, at_least=2)
    grey_F1HW = reduce(at_work_size(video_FHWC), "f c h w -> f 1 h w", "mean")
    levels = [grey_F1HW]
    while min(levels[-1].shape[-2:]) >= 2 * _COARSEST:
        levels.append(nnf.avg_pool2d(levels[-1], 2))
    flow_F2HW = grey_F1HW.new_zeros(len(grey_F1HW) - 1, 2, *levels[-1].shape[-2:])
    for level_F1HW in reversed(levels):
        flow_F2HW = _refined(level_F1HW, _enlarged(flow_F2HW, level_F1HW.shape[-2:]))
    return flow_F2HW


def warped(frames_FCHW: Tensor, flow_F2HW: Tensor) -> Tensor:
    """Each frame as it is seen from where its flow begins: out[y, x] = frame[y + v, x + u]."""
    h, w = frames_FCHW.shape[-2:]
    y_HW, x_HW = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    here_2HW = torch.stack([x_HW, y_HW]).to(flow_F2HW)
    return sampled(frames_FCHW, rearrange(here_2HW + flow_F2HW, "f two h w -> f h w two"))


def sampled(frames_FCHW: Tensor, places_FHW2: Tensor) -> Tensor:
    """Values of frames at places (x, y) in pixels, linear between pixels; beyond the edge, the edge's."""
    h, w = frames_FCHW.shape[-2:]
    span_2 = places_FHW2.new_tensor([max(w - 1, 1), max(h - 1, 1)])
    grid_FHW2 = 2 * places_FHW2 / span_2 - 1
    return nnf.grid_sample(frames_FCHW, grid_FHW2, padding_mode="border", align_corners=True)


def _enlarged(flow_F2HW: Tensor, size: torch.Size) -> Tensor:
    h, w = flow_F2HW.shape[-2:]
    ratio_2 = flow_F2HW.new_tensor([size[1] / w, size[0] / h])
    larger_F2HW = nnf.interpolate(flow_F2HW, size=tuple(size), mode="bilinear", align_corners=False)
    return larger_F2HW * rearrange(ratio_2, "two -> two 1 1")


def _refined(grey_F1HW: Tensor, flow_F2HW: Tensor) -> Tensor:
    """The flow after some steps of least squares in each pixel's window, at most _FARTHEST in all."""
    one_F1HW, then_F1HW = grey_F1HW[:-1], grey_F1HW[1:]
    coarse_F2HW = flow_F2HW
    x_F1HW, y_F1HW = _gradients(one_F1HW)
    xx, xy, yy = (_window(a * b) for a, b in ((x_F1HW, x_F1HW), (x_F1HW, y_F1HW), (y_F1HW, y_F1HW)))
    xx, yy = xx + _FLATNESS, yy + _FLATNESS
    for _ in range(_ROUNDS):
        change_F1HW = warped(then_F1HW, flow_F2HW) - one_F1HW
        xt, yt = _window(x_F1HW * change_F1HW), _window(y_F1HW * change_F1HW)
        step_F2HW = torch.cat([xy * yt - yy * xt, xy * xt - xx * yt], dim=1) / (xx * yy - xy * xy)
        moved_F2HW = (flow_F2HW + step_F2HW.clamp(-1, 1) - coarse_F2HW).clamp(-_FARTHEST, _FARTHEST)
        flow_F2HW = coarse_F2HW + moved_F2HW
    return _median(flow_F2HW)


def _gradients(grey_F1HW: Tensor) -> tuple[Tensor, Tensor]:
    padded_F1HW = nnf.pad(grey_F1HW, (1, 1, 1, 1), mode="replicate")
    x_F1HW = (padded_F1HW[..., 1:-1, 2:] - padded_F1HW[..., 1:-1, :-2]) / 2
    y_F1HW = (padded_F1HW[..., 2:, 1:-1] - padded_F1HW[..., :-2, 1:-1]) / 2
    return x_F1HW, y_F1HW


def _window(values_F1HW: Tensor) -> Tensor:
    """Means over 7 x 7 pixels, the near ones counting more: two boxes, one after the other."""
    for width in (5, 3):
        values_F1HW = nnf.avg_pool2d(values_F1HW, width, 1, width // 2, count_include_pad=False)
    return values_F1HW


def _median(flow_F2HW: Tensor) -> Tensor:
    """The median of 3 x 3 neighbours, which drops what a single pixel believes."""
    h, w = flow_F2HW.shape[-2:]
    padded_F2HW = nnf.pad(flow_F2HW, (1, 1, 1, 1), mode="replicate")
    shifted = [padded_F2HW[..., i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return torch.stack(shifted).median(dim=0).values

"""What a frame looks like, wherever things stand in it: colours, edges and textures of small patches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor

from .metrics import check_reference, check_video
from .sizes import at_work_size

_PATCH = 5
_DIRECTIONS = 64
_QUANTILES = 128


def reference_likeness(video_FHWC: Tensor, reference_1HWC: Tensor) -> Tensor:
    """How much every frame looks like the reference, wherever things stand: in (0, 1], 1 = the same.

    likeness = 1 / (1 + mean over k of W1(P w_k, R w_k) / std(R w_k)), where the rows of P and R are all 5 x 5
    colour patches of the frame and of the reference, w_k are 64 fixed random directions, and W1 is the
    Wasserstein distance on the line: the mean distance of the sorted values. Pictures are first brought down
    to the area of 128 x 128. It sees colours, edges and textures, and neither motion nor identity; the
    background counts by its area. A still picture scores 1.
    """
    check_reference(video_FHWC, reference_1HWC)
    found_FKN = _sorted_projections(video_FHWC)
    wanted_1KN = _sorted_projections(reference_1HWC)
    return 1 / (1 + _distance(found_FKN, wanted_1KN, _spread(wanted_1KN)))


def looks(video_FHWC: Tensor) -> Tensor:
    """The look of each frame (F, 64, 128): quantiles of its patches' projections, of frames of any size."""
    check_video(video_FHWC)
    sorted_FKN = _sorted_projections(video_FHWC)
    places_Q = torch.linspace(0, sorted_FKN.shape[-1] - 1, _QUANTILES).round().long()
    return sorted_FKN[..., places_Q]


def leak(looks_FKQ: Tensor, reference_1KQ: Tensor, training_LKQ: Sequence[Tensor] | Tensor) -> float:
    """How far frames have gone from the reference's look to that of a training clip, in [0, 1].

    a / (a + b), where a is a frame's distance to the reference's look and b that to the nearest training
    look: 0 = the reference's look, 1 = a training clip's, 0 where both are 0; the mean over the frames after
    frame 0. All looks come from `looks`, and distances are those of `reference_likeness`.
    """
    if not len(training_LKQ):
        raise ValueError("The leak is measured against the looks of training clips, but there are none.")
    spread_1K = _spread(reference_1KQ)
    own_FKQ = looks_FKQ[1:]
    to_reference_F = _distance(own_FKQ, reference_1KQ, spread_1K)
    to_training_LF = torch.stack([_distance(own_FKQ, look_KQ[None], spread_1K) for look_KQ in training_LKQ])
    both_F = to_reference_F + to_training_LF.amin(dim=0)
    return (to_reference_F / both_F.clamp(min=1e-12)).mean().item()


def _sorted_projections(video_FHWC: Tensor) -> Tensor:
    small_FCHW = at_work_size(video_FHWC, least=_PATCH)
    draw = torch.Generator().manual_seed(0)
    directions_KCPP = torch.randn(_DIRECTIONS, small_FCHW.shape[1], _PATCH, _PATCH, generator=draw)
    filters_KCPP = directions_KCPP.to(small_FCHW)  # their length cancels out
    projected_FKHW = nnf.conv2d(small_FCHW, filters_KCPP)
    return rearrange(projected_FKHW, "f k h w -> f k (h w)").sort(dim=-1).values


def _spread(wanted_1KN: Tensor) -> Tensor:
    return wanted_1KN.std(dim=-1) + 1e-6


def _distance(found_FKN: Tensor, wanted_1KN: Tensor, spread_1K: Tensor) -> Tensor:
    return ((found_FKN - wanted_1KN).abs().mean(dim=-1) / spread_1K).mean(dim=-1)

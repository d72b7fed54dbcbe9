"""How alike two videos move, whatever they show: directions, speeds and accelerations along tracks."""

import math

import torch
from einops import einsum, rearrange
from torch import Tensor

from .flow import dense_flow, sampled, warped
from .metrics import check_video
from .sizes import at_work_size

_GRID = 16
"""Tracks begin at so many places along each side."""
_STILL = 1e-3
"""Of the frame's diagonal: a step below it is none. At 128 x 128 this is a fifth of a pixel."""
_DIRECTIONS, _SPEEDS = 8, 5


def track_steps(video_FHWC: Tensor) -> Tensor:
    """Steps (256, F - 1, 2) of points that begin on a grid and follow the flow, in parts of the diagonal."""
    flow_F2HW = dense_flow(video_FHWC)
    h, w = flow_F2HW.shape[-2:]
    middles_G = (torch.arange(_GRID).to(flow_F2HW) + 0.5) / _GRID
    y_GG, x_GG = torch.meshgrid(middles_G * h - 0.5, middles_G * w - 0.5, indexing="ij")
    place_N2 = rearrange([x_GG, y_GG], "two row column -> (row column) two")
    steps = []
    for flow_2HW in flow_F2HW:
        found_12N1 = sampled(flow_2HW[None], rearrange(place_N2, "n two -> 1 n 1 two"))
        steps.append(rearrange(found_12N1, "1 two n 1 -> n two"))
        place_N2 = place_N2 + steps[-1]
    return rearrange(steps, "f n two -> n f two") / math.hypot(h, w)


def motion_agreement(steps_NF2: Tensor, true_MF2: Tensor) -> float:
    """How well the tracks of two videos, from `track_steps`, agree in direction; in [-1, 1], 1 is best.

    Motion fidelity as FlexiAct (arXiv:2505.03730) has it from arXiv:2311.17009: each track's best match among
    the other video's, by the mean cosine of their steps; the mean of both ways. Deviations: the published
    code takes the identity from a table of two different videos, and divides by the length of steps that may
    be none. Here nothing is taken away; two steps that are none agree (1), one alone does not (0); and a
    track counts by its length, so that a background at rest does not count. Tracks follow `dense_flow` in
    place of a network. A video at rest and one that moves have 0, two at rest 1.
    """
    _check_length(steps_NF2, true_MF2)
    (own_NF2, still_NF), (other_MF2, rest_MF) = _directions(steps_NF2), _directions(true_MF2)
    if still_NF.all() or rest_MF.all():
        return float(still_NF.all() and rest_MF.all())
    cosines_NM = einsum(own_NF2, other_MF2, "n f two, m f two -> n m")
    both_still_NM = einsum(still_NF.to(own_NF2), rest_MF.to(own_NF2), "n f, m f -> n m")
    agreement_NM = (cosines_NM + both_still_NM) / steps_NF2.shape[1]
    found = _by_length(agreement_NM.amax(dim=1), steps_NF2) + _by_length(agreement_NM.amax(dim=0), true_MF2)
    return found / 2


def motion_histogram_distance(steps_NF2: Tensor, true_MF2: Tensor) -> float:
    """How differently two videos move, by tracks from `track_steps`: in [0, 1], 0 = alike.

    The idea of FVMD (arXiv:2407.16124), histograms of velocities and accelerations, on tracks of the dense
    flow and for two videos: sum |a - b| / sum (a + b) of histograms over 8 directions and 5 speeds, each the
    double of the last, in which a step counts by its length; the mean for velocities and accelerations. A
    video at rest and one that moves have 1, two at rest 0. Not comparable with published values of FVMD.
    """
    _check_length(steps_NF2, true_MF2, at_least=2)
    pairs = [(steps_NF2, true_MF2), (steps_NF2.diff(dim=1), true_MF2.diff(dim=1))]
    return sum(_histogram_distance(_histogram(own), _histogram(other)) for own, other in pairs) / len(pairs)


def flicker(video_FHWC: Tensor) -> float:
    """How much pixels differ from the mean of the frames before and after, followed along the flow.

    In percent of the way from black to white, at least 0, lower is steadier. Steady motion and a slow change
    of light cost nothing; alternating light and noise do. A still picture scores 0.
    """
    check_video(video_FHWC, at_least=3)
    frames_FCHW = at_work_size(video_FHWC)
    after_FCHW = warped(frames_FCHW[2:], dense_flow(video_FHWC[1:]))
    before_FCHW = warped(frames_FCHW[:-2], dense_flow(video_FHWC[:-1].flip(0)).flip(0))
    return 100 * (frames_FCHW[1:-1] - (before_FCHW + after_FCHW) / 2).abs().mean().item()


def _check_length(steps_NF2: Tensor, true_MF2: Tensor, at_least: int = 1) -> None:
    frames = steps_NF2.shape[1] + 1, true_MF2.shape[1] + 1
    if frames[0] != frames[1] or frames[0] <= at_least:
        raise ValueError(
            f"Motion is compared frame by frame, but the videos have {frames[0]} and {frames[1]} frames: cut "
            f"both to the same number, {at_least + 1} or more."
        )


def _directions(steps_NF2: Tensor) -> tuple[Tensor, Tensor]:
    """Steps of length 1, and which are none."""
    lengths_NF1 = steps_NF2.norm(dim=-1, keepdim=True)
    still_NF1 = lengths_NF1 < _STILL
    return (steps_NF2 / lengths_NF1.clamp(min=_STILL)).masked_fill(still_NF1, 0.0), still_NF1.squeeze(-1)


def _by_length(values_N: Tensor, steps_NF2: Tensor) -> float:
    """The mean of the tracks' values, each counting by its track's length."""
    lengths_NF = steps_NF2.norm(dim=-1)
    weights_N = lengths_NF.masked_fill(lengths_NF < _STILL, 0.0).sum(dim=1)
    return float((values_N * weights_N).sum() / weights_N.sum())


def _histogram(steps_NF2: Tensor) -> Tensor:
    """Summed lengths (8, 5) of steps by direction and speed; a step between two directions goes to both."""
    lengths_N = rearrange(steps_NF2.norm(dim=-1), "n f -> (n f)")
    moves_N = lengths_N >= _STILL
    lengths_N, steps_N2 = lengths_N[moves_N], rearrange(steps_NF2, "n f two -> (n f) two")[moves_N]
    turn_N = torch.atan2(steps_N2[:, 1], steps_N2[:, 0]) / (2 * math.pi) * _DIRECTIONS
    speed_N = (lengths_N / _STILL).log2().floor().long().clamp(0, _SPEEDS - 1)
    histogram_DS = steps_NF2.new_zeros(_DIRECTIONS, _SPEEDS)
    below_N = turn_N.floor()
    for direction_N, share_N in ((below_N, below_N + 1 - turn_N), (below_N + 1, turn_N - below_N)):
        place_N = (direction_N.long() % _DIRECTIONS, speed_N)
        histogram_DS.index_put_(place_N, lengths_N * share_N, accumulate=True)
    return histogram_DS


def _histogram_distance(own_DS: Tensor, other_DS: Tensor) -> float:
    total = (own_DS + other_DS).sum().item()
    return (own_DS - other_DS).abs().sum().item() / total if total else 0.0

"""Measures of a video whose truth is known: what its actor does, and how much of the reference it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from flash_modules.evaluation.metrics import first_frame_transition, relative_sharpness, temporal_consistency

from ..world.clips import Clip, clip_video
from ..world.skeleton import Array
from .movements import load_movements
from .reader import Reader, actor_is_right, joint_distance, read_joints, read_looks

_NEAR = np.ones((13, 13), np.uint8)


def _column(title: str) -> Any:
    return field(metadata={"title": title})


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One video against its truth. Arrows in the titles: higher or lower is better."""

    joint_error: float = _column("joint error, % ↓")
    """Mean distance of the joints after frame 0 from those of the nearest true continuation, in percent of
    the standing figure's height. The reader reads both from frames, so that its own habits and hidden joints
    cancel out. Left and right may be exchanged throughout."""
    joint_floor: float = _column("floor, %")
    """The same for true continuations, each held against the others; their mean."""
    still_error: float = _column("still, %")
    """The same for a video that repeats the reference."""
    flow_cosine: float = _column("flow cosine ↑")
    """Cosine in [-1, 1] of the optical flow and the nearest truth's, around the true figures; still is 0."""
    recognised: float = _column("recognised ↑")
    """Likeness in [0, 1] of the movements to true performances of the action; see `Movements.likeness`."""
    likeness: float = _column("likeness ↑")
    """Mean cosine in [-1, 1] of the look of frames after frame 0 and that of the reference."""
    leak: float = _column("leak ↓")
    """a / (a + b) in [0, 1], where a is the distance of a frame's look to the reference and b that to the
    nearest training look: 0 = the reference's look, 1 = a training look; mean over frames after frame 0."""
    jump_ratio: float = _column("first jump ratio, 1 is best")
    consistency: float = _column("consistency ↑")
    sharpness: float = _column("sharpness, 1 is best")
    """Relative to the reference; mean over frames after frame 0."""


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What videos that begin with one picture are held against, read once for all of them."""

    truths: Sequence[Clip]
    """True continuations; frame 0 of each is the reference."""
    tracks: Sequence[Tensor]
    """Their joints, as the reader reads them."""
    reference_1HWC: Tensor
    look_1E: Tensor
    """The reference's."""
    joint_floor: float
    still_error: float

    @property
    def right_person(self) -> bool:
        """Whether the actor is the one on the right."""
        return actor_is_right(self.truths[0])


@torch.inference_mode()
def read_standard(truths: Sequence[Clip], *, reader: Reader) -> Standard:
    """The standard of two or more true continuations of one frame."""
    if len(truths) < 2:
        raise ValueError(f"The floor needs two or more true continuations, but there are {len(truths)}.")
    height, right = truths[0].height, actor_is_right(truths[0])
    tracks = [read_joints(reader, clip_video(truth), right_person=right) for truth in truths]
    reference_1HWC = clip_video(truths[0])[:1]
    still_FHWC = reference_1HWC.expand(len(tracks[0]), -1, -1, -1)
    still = read_joints(reader, still_FHWC, right_person=right)
    return Standard(
        truths=truths,
        tracks=tracks,
        reference_1HWC=reference_1HWC,
        look_1E=read_looks(reader, reference_1HWC),
        joint_floor=joint_floor(tracks, height),
        still_error=min(track_error(still, track, height) for track in tracks),
    )


@torch.inference_mode()
def score(video_FHWC: Tensor, standard: Standard, training_looks_LE: Tensor, *, reader: Reader) -> Scores:
    """Measure a video in [0, 1] whose frame 0 is the reference, as long and as large as the truths.

    `training_looks_LE` comes from `mean_looks` of the training clips.
    """
    truths = standard.truths
    _check(video_FHWC, truths)
    height = truths[0].height
    read = read_joints(reader, video_FHWC, right_person=standard.right_person)
    errors = [track_error(read, track, height) for track in standard.tracks]
    own_FE = read_looks(reader, video_FHWC[1:])
    return Scores(
        joint_error=min(errors),
        joint_floor=standard.joint_floor,
        still_error=standard.still_error,
        flow_cosine=flow_cosine(video_FHWC, truths[int(np.argmin(errors))]),
        recognised=load_movements().likeness(read, height, truths[0].motion.action),
        likeness=(own_FE @ standard.look_1E.T).mean().item(),
        leak=_leak(own_FE, standard.look_1E, training_looks_LE),
        jump_ratio=first_frame_transition(video_FHWC).ratio,
        consistency=temporal_consistency(video_FHWC),
        sharpness=relative_sharpness(video_FHWC[1:], standard.reference_1HWC).mean().item(),
    )


def _check(video_FHWC: Tensor, truths: Sequence[Clip]) -> None:
    for truth in truths:
        if truth.frames_FHW3.shape != video_FHWC.shape:
            raise ValueError(
                f"The video has the shape {tuple(video_FHWC.shape)} and a true continuation "
                f"{truth.frames_FHW3.shape}: make both as long and as large as each other."
            )


def track_error(found_FJ2: Tensor, true_FJ2: Tensor, height: float) -> float:
    """Mean distance of joints after frame 0, in percent of the height; see `joint_distance`."""
    return 100 / height * joint_distance(found_FJ2[1:], true_FJ2[1:])


def joint_floor(tracks: Sequence[Tensor], height: float) -> float:
    """The joint error of truth: each track against the best of the others, and the mean of that."""
    others = [(track, [*tracks[:i], *tracks[i + 1 :]]) for i, track in enumerate(tracks)]
    return fmean(min(track_error(track, other, height) for other in rest) for track, rest in others)


def gap_closed(before: float, after: float, floor: float) -> float:
    """Part of the way from the error before learning to the floor: 0 = nothing learned, 1 = like a truth."""
    return (before - after) / (before - floor)


def flow_cosine(video_FHWC: Tensor, truth: Clip) -> float:
    """Cosine of two videos' optical flows as one long vector, near the true figures; 0 where nothing moves.

    Near is within 6 pixels of anybody or anything in the truth. Both flows are estimated, by OpenCV's DIS
    (arXiv:1603.03590): against the exact flow a true video would lose by the estimator's faults. Measured
    on 7 actions: continuations among each other 0.75, against their exact flow 0.39, other actions 0.01.
    """
    near_FHW = np.stack([cv2.dilate(mask, _NEAR) > 0 for mask in truth.masks_FHW])
    counted_FHW = near_FHW[:-1] | near_FHW[1:]
    own, true = (flow(frames_FHWC)[counted_FHW] for frames_FHWC in (video_FHWC, clip_video(truth)))
    size = float(np.linalg.norm(own) * np.linalg.norm(true))
    return float((own * true).sum()) / size if size else 0.0


def flow(video_FHWC: Tensor) -> Array:
    """Estimated flow (F - 1, H, W, 2): pixels (x, y) that each pixel moves until the next frame."""
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey_FHW = (255 * video_FHWC.mean(dim=-1)).round().byte().numpy()
    flow_FHW2 = np.zeros((len(grey_FHW) - 1, *grey_FHW.shape[1:], 2), np.float32)
    for f, (one, then) in enumerate(pairwise(grey_FHW)):
        flow_FHW2[f] = estimator.calc(one, then, flow_FHW2[f])
    return flow_FHW2


@torch.inference_mode()
def mean_looks(reader: Reader, clips: Sequence[Clip]) -> Tensor:
    """The look of each clip (L, 48), of unit length: the mean direction of its frames' looks."""
    looks = [read_looks(reader, clip_video(clip)).mean(dim=0) for clip in clips]
    return nnf.normalize(torch.stack(looks), dim=1)


def _leak(own_FE: Tensor, reference_1E: Tensor, training_looks_LE: Tensor) -> float:
    to_reference_F = (own_FE - reference_1E).norm(dim=1)
    to_training_F = (own_FE[:, None] - training_looks_LE).norm(dim=-1).amin(dim=1)
    return float((to_reference_F / (to_reference_F + to_training_F)).mean())


def markdown_table(rows: Mapping[str, Sequence[Scores]], *, before: str | None = None) -> str:
    """One row per name with mean ± standard deviation of its videos.

    With `before`, the name of a row, a last column says how much of the gap between that row's joint error
    and the floor each row closes, by the means.
    """
    titles = [
        "",
        *(column.metadata["title"] for column in fields(Scores)),
        *(["gap closed ↑"] if before else []),
    ]
    lines = [titles, ["---"] * len(titles)]
    for name, scores in rows.items():
        columns = zip(*map(astuple, scores), strict=True)
        lines.append([name, *map(_mean_and_spread, columns)])
        if before:
            lines[-1].append(_gap(rows[before], scores))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3g} ± {stdev(values):.2g}" if len(values) > 1 else f"{values[0]:.3g}"


def _gap(before: Sequence[Scores], after: Sequence[Scores]) -> str:
    errors = [fmean(s.joint_error for s in scores) for scores in (before, after)]
    return f"{gap_closed(errors[0], errors[1], fmean(s.joint_floor for s in before)):.0%}"

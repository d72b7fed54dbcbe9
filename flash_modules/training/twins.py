"""Twins from elsewhere: the motions of clips in other looks, frame by frame, made by any restyling workflow.

Not in the paper (FLASH, arXiv:2503.00276), whose twins are blurred and recoloured clips: all of it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from .clips import Clip

_DURATION, _ASPECT = 0.05, 0.03
"""By which parts a twin may differ: a workflow's round frame rates, and sizes of whole latents."""
_MOST_FRAMES, _SHORT_SIDE = 192, 64
"""That are looked at, spread over the clip, and their pixels."""
_CHANGE = 1 / 8
"""Seconds over which changes are looked at."""
_CELLS = 8
"""Of the grid in which they are, in each direction."""
_FEWEST = 8
"""Moments from which the fit of two motions says something."""
_SAME_LOOK = 2 / 255
"""Mean difference below which a twin is the clip itself, written once more."""
_MARGIN, _NOTHING, _SURE, _NAMED = 0.15, 0.03, 0.3, 0.5
"""Fits, 1 at the most: by how much another one shows that a twin is wrong; below which it has nothing to do
with its clip; below which that is not sure; and from which another one says what is wrong. Measured: right
twins in drawn looks fit by 0.24 to 0.99 and strongly flickering ones by 0.04 or more, at most 0.08 less than
any other; wrong ones by 0.01 in the median.
"""


def with_twins(clips: Sequence[Clip], twins: Sequence[Clip]) -> tuple[Clip, ...]:
    """The clips, each with the twin in its place; a twin that may be wrong says so in its notes.

    Raises ValueError, in a sentence, for another number of twins and for twins that do not show the motions
    of their clips frame by frame.
    """
    check_count(len(twins), len(clips))
    for clip, twin in zip(clips, twins, strict=True):
        _check_length(clip, twin)
        _check_aspect(clip, twin)
    seen = [_Seen.of(clip, twin) for clip, twin in zip(clips, twins, strict=True)]
    return tuple(
        replace(clip, twin=_noted(twin, _doubt(one, seen)))
        for clip, twin, one in zip(clips, twins, seen, strict=True)
    )


def check_count(twins: int, clips: int) -> None:
    """Raise ValueError unless there are as many twins as clips."""
    if twins != clips:
        raise ValueError(
            f"There are {twins} twins for {clips} clips: give one of each clip, in the same order."
        )


def _check_length(clip: Clip, twin: Clip) -> None:
    if twin.num_frames != clip.num_frames:
        raise ValueError(
            f"The twin of {clip.path.name} has {twin.num_frames} frames, but the clip has {clip.num_frames}: "
            "make it of all of them, frame by frame."
        )
    if abs(twin.duration / clip.duration - 1) > _DURATION:
        raise ValueError(
            f"The twin of {clip.path.name} lasts {twin.duration:.2f} s, but the clip lasts "
            f"{clip.duration:.2f} s: give it the clip's {clip.fps:.4g} frames a second."
        )


def _check_aspect(clip: Clip, twin: Clip) -> None:
    (width, height), (own_width, own_height) = twin.size, clip.size
    if abs((width / height) / (own_width / own_height) - 1) > _ASPECT:
        raise ValueError(
            f"The twin of {clip.path.name} has {width}x{height} pixels, but the clip has "
            f"{own_width}x{own_height}: make it of whole frames, without cutting or stretching them."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """What is seen of a clip and its twin."""

    clip: Clip
    seconds: float
    """From one moment to the next."""
    motion_FHW: Tensor
    """How much each part of the picture changes at each moment."""
    twin_FHW: Tensor
    """The same of the twin."""

    @classmethod
    def of(cls, clip: Clip, twin: Clip) -> "_Seen":
        """Raises ValueError if the twin looks as the clip does."""
        step = math.ceil(clip.num_frames / _MOST_FRAMES)
        indices = range(0, clip.num_frames, step)
        lag = min(max(1, round(_CHANGE * clip.fps / step)), len(indices) - 1)
        videos = [one.read(indices, short_side=_SHORT_SIDE) for one in (clip, twin)]
        looks = [adaptive_avg_pool2d(video_FCHW, _SHORT_SIDE // 2) for video_FCHW in videos]
        if (looks[0] - looks[1]).abs().mean() < _SAME_LOOK:
            raise ValueError(
                f"The twin of {clip.path.name} looks as the clip does: give one in another look, or no twins."
            )
        motions = [_motion(video_FCHW, lag) for video_FCHW in videos]
        return cls(clip=clip, seconds=step / clip.fps, motion_FHW=motions[0], twin_FHW=motions[1])

    @property
    def says_something(self) -> bool:
        return len(self.motion_FHW) >= _FEWEST and bool(_centred(self.motion_FHW).norm() > 1e-6)


def _motion(video_FCHW: Tensor, lag: int) -> Tensor:
    changes_FCHW = (video_FCHW[lag:] - video_FCHW[:-lag]).abs()
    return adaptive_avg_pool2d(changes_FCHW, _CELLS).mean(dim=1).sqrt()


def _fit(one_FHW: Tensor, other_FHW: Tensor) -> float:
    """How much two motions have in common, -1 to 1: the correlation of where and when something changes.

    What changes all the time in one place, and everywhere at one time, counts for nothing: it is alike in
    clips of one action, and where a look flickers.
    """
    one_FHW, other_FHW = _centred(one_FHW), _centred(other_FHW)
    return float((one_FHW * other_FHW).sum() / (one_FHW.norm() * other_FHW.norm()).clamp(min=1e-6))


def _centred(motion_FHW: Tensor) -> Tensor:
    motion_FHW = motion_FHW - motion_FHW.mean(dim=0, keepdim=True)
    return motion_FHW - motion_FHW.mean(dim=(1, 2), keepdim=True)


def _doubt(one: _Seen, seen: Sequence[_Seen]) -> str | None:
    """What makes it unsure whether the twin shows its clip's motion. Raises ValueError if it does not."""
    if not one.says_something:
        return "too little moves to see whether it shows the clip's motion"
    fit = _fit(one.motion_FHW, one.twin_FHW)
    best, wrong = max(_others(one, seen), key=lambda other: other[0])
    if best > fit + _MARGIN or fit < _NOTHING:
        if best < _NAMED:
            wrong = "does not show the clip's motion: make it of this clip, frame by frame, or give no twins"
        raise ValueError(f"The twin of {one.clip.path.name} {wrong}.")
    if fit < _SURE or best > fit:
        return "it is not sure that it shows the clip's motion; look at both"
    return None


def _others(one: _Seen, seen: Sequence[_Seen]) -> Iterator[tuple[float, str]]:
    """Fits of what may have been meant, each with what is wrong then, and what to do."""
    motion_FHW, twin_FHW = one.motion_FHW, one.twin_FHW
    yield _fit(motion_FHW, twin_FHW.flip(-1)), "is mirrored: mirror it once more, or leave that to training"
    for other in seen:
        if other is not one and other.twin_FHW.shape == motion_FHW.shape:
            told = f"fits worse than that of {other.clip.path.name}: give twins in the order of the clips"
            yield _fit(motion_FHW, other.twin_FHW), told
    for shift in range(1, len(motion_FHW) // 4 + 1):
        told = "is {:.2g} s {}: cut both so that they begin together"
        late = _fit(motion_FHW[:-shift], twin_FHW[shift:])
        early = _fit(motion_FHW[shift:], twin_FHW[:-shift])
        yield late, told.format(shift * one.seconds, "late")
        yield early, told.format(shift * one.seconds, "early")


def _noted(twin: Clip, doubt: str | None) -> Clip:
    if doubt is None:
        return twin
    return replace(twin, footage=replace(twin.footage, notes=(*twin.footage.notes, doubt)))

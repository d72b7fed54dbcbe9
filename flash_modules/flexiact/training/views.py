"""What is taken of the one clip: 49 frames, and twelve crops of them in their places."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor
from torch.nn.functional import interpolate

from ...files.footage import SLACK
from ...training.clips import Clip

_MOST = 1080
"""Pixels of a short side. Larger clips are made smaller before they are cropped: 49 frames take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Which frames and crops are taken. The size is the base's; the released data has twelve crops of 0.8."""

    frames: int = 49
    height: int = 480
    width: int = 720
    start: float = 0.0
    """Seconds of the clip, from which on frames are taken."""
    end: float | None = None
    """Seconds; None is the clip's end."""
    crop: float = 0.8
    """Side of a crop over the clip's."""
    columns: int = 3
    rows: int = 4

    def __post_init__(self) -> None:
        if self.frames < 5 or self.frames % 4 != 1:
            raise ValueError(f"`frames` must be 4 n + 1, such as 49, 33 or 25, but it is {self.frames}.")
        if not 0 < self.crop <= 1:
            raise ValueError(f"`crop` is a share of the clip's side between 0 and 1, but it is {self.crop}.")
        if min(self.columns, self.rows) < 1:
            raise ValueError(f"There must be 1 crop or more, but there are {self.columns} x {self.rows}.")
        if not 0 <= self.start < (float("inf") if self.end is None else self.end):
            raise ValueError(f"The cut goes from {self.start} to {self.end} s: it must begin before it ends.")

    @property
    def num_views(self) -> int:
        return self.columns * self.rows


@dataclass(frozen=True)
class Cut:
    """Frames that are taken from a clip, by their numbers in it."""

    indices: tuple[int, ...]
    note: str
    """What a person should know of it, or nothing."""


def cut_frames(clip: Clip, config: ViewConfig) -> Cut:
    """Frames spread evenly over the cut, first and last included: those that are shown at those times.

    Raises ValueError if the cut lies beyond the clip.
    """
    times = clip.footage.times
    first = times[0]
    if config.start >= clip.duration or (config.end is not None and config.end > clip.duration + SLACK):
        raise ValueError(
            f"{clip.path.name} lasts {clip.duration:.2f} s, and the cut goes from {config.start:g} to "
            f"{clip.duration if config.end is None else config.end:g} s: cut it within the clip."
        )
    last = times[-1] if config.end is None else min(first + config.end, times[-1])
    gap = (last - first - config.start) / (config.frames - 1)
    shown = (bisect_right(times, first + config.start + i * gap + SLACK) - 1 for i in range(config.frames))
    indices = tuple(max(0, index) for index in shown)
    return Cut(indices, _shown_twice(clip, indices))


def cut_rows(clip: Clip, frames: Sequence[int], config: ViewConfig) -> Cut:
    """As many of these frames as are learned from, spread evenly, first and last included.

    Deviation: where there are more, the released code takes another window of 49 in each step, and where
    there are fewer, it leaves the clip out.
    """
    gap = (len(frames) - 1) / (config.frames - 1)
    indices = tuple(frames[round(i * gap)] for i in range(config.frames))
    if len(frames) > config.frames:
        return Cut(indices, f"{clip.path.name}: {config.frames} of {len(frames)} frames, spread evenly.")
    return Cut(indices, _shown_twice(clip, indices))


def _shown_twice(clip: Clip, indices: tuple[int, ...]) -> str:
    different, wanted = len(set(indices)), len(indices)
    if different == wanted:
        return ""
    return f"{clip.path.name} has {different} frames there, and some are shown twice to make {wanted}."


@dataclass(frozen=True)
class Part:
    """A clip, its frames that are taken, and the crops of them."""

    clip: Clip
    cut: Cut
    config: ViewConfig


def views(part: Part) -> Iterator[Tensor]:
    """Videos (F, 3, H, W) in [0, 1], row by row of crops."""
    config = part.config
    video_FCHW = part.clip.read(part.cut.indices, _MOST)
    for top, left in product(_places(config.rows), _places(config.columns)):
        yield fill(_crop(video_FCHW, top, left, config.crop), config.height, config.width)


def fitted_frames(clip: Clip, indices: Sequence[int], height: int, width: int) -> Tensor:
    """Frames (F, 3, H, W) of a clip in [0, 1], which fill the size."""
    return fill(clip.read(indices, _MOST), height, width)


def _places(count: int) -> list[float]:
    """Shares of the free way, from one edge to the other."""
    return [0.5] if count == 1 else [i / (count - 1) for i in range(count)]


def _crop(video_FCHW: Tensor, top: float, left: float, ratio: float) -> Tensor:
    """A crop of so much of each side; `top` and `left` are shares of the way that is free."""
    height, width = video_FCHW.shape[-2:]
    kept_height, kept_width = (max(1, round(side * ratio)) for side in (height, width))
    y, x = round(top * (height - kept_height)), round(left * (width - kept_width))
    return video_FCHW[..., y : y + kept_height, x : x + kept_width]


def fill(video_FCHW: Tensor, height: int, width: int) -> Tensor:
    """A video resized until it covers the size, and its centre: bicubic, antialiased, in [0, 1]."""
    scale = max(height / video_FCHW.shape[-2], width / video_FCHW.shape[-1])
    size = tuple(
        max(least, int(side * scale))
        for side, least in zip(video_FCHW.shape[-2:], (height, width), strict=True)
    )
    large = interpolate(video_FCHW, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    return large[..., y : y + height, x : x + width]

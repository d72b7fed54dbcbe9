"""Videos in files, as the evaluation reads them."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from einops import rearrange
from torch import Tensor

from ..files.footage import SLACK, Footage
from .metrics import check_video

_SHORT_SIDE = 512
_MOST_FRAMES = 200


class Film(Protocol):
    """A video's file or folder of pictures, which was looked through."""

    @property
    def path(self) -> Path: ...
    @property
    def footage(self) -> Footage: ...
    def read(self, indices: Sequence[int], short_side: int | None = None) -> Tensor:
        """Frames (F, 3, H, W) in [0, 1]."""


def times_of(film: Film) -> tuple[float, ...]:
    """Seconds from its start at which its frames are shown."""
    return tuple(time - film.footage.times[0] for time in film.footage.times)


def read_film(film: Film) -> Tensor:
    """All frames (F, H, W, 3) in [0, 1], at most 512 pixels on the short side.

    Raises ValueError for a video of less than 3 frames, or of so many that it is no generated clip.
    """
    count = len(film.footage.times)
    if count > _MOST_FRAMES:
        raise ValueError(f"it has {count} frames, and {_MOST_FRAMES} are the most: cut it shorter")
    video_FHWC = _frames(film, range(count))
    check_video(video_FHWC, at_least=3)
    return video_FHWC


def read_film_at(film: Film, times: Sequence[float]) -> Tensor:
    """Frames (F, H, W, 3) that are shown so many seconds after its start; none after its end."""
    own = times_of(film)
    end = film.footage.end - film.footage.times[0]
    return _frames(film, [bisect_right(own, time + SLACK) - 1 for time in times if time < end - SLACK])


def _frames(film: Film, indices: Sequence[int]) -> Tensor:
    return rearrange(film.read(indices, _SHORT_SIDE), "f c h w -> f h w c")

"""Which clip a step trains on, and which frames are taken from it.

Not in the paper (FLASH, arXiv:2503.00276): all of it. The stride and the spread are AnimateDiff's.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .clips import Clip


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How frames are taken from a clip."""

    num_frames: int = 16
    stride: int | None = 4
    """One of so many frames, from a random start, in clips of 24 to 30 frames per second (AnimateDiff); in
    slower and faster ones what lasts as long. A clip too short for that is spread evenly, from end to end.
    None spreads every clip."""

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise ValueError(f"A video needs 2 frames or more, but `num_frames` is {self.num_frames}.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"`stride` must be 1 or more, but it is {self.stride}.")


@dataclass(frozen=True)
class Taken:
    """The frames that are taken from a clip, and how many of them make a second."""

    indices: tuple[int, ...]
    fps: float


def clip_at_step(clips: Sequence[Clip], seed: int, step: int) -> int:
    """Index of the clip that a step trains on, the same for the same seed and step.

    Of A actions each comes once in A steps, and all clips of an action come once before one comes again, in a
    random order.
    """
    actions: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        actions.setdefault(clip.action, []).append(index)
    turn, place = divmod(step, len(actions))
    action = _shuffled(len(actions), seed, "actions", turn)[place]
    group = list(actions.values())[action]
    epoch, place = divmod(turn, len(group))
    return group[_shuffled(len(group), seed, "clips", action, epoch)[place]]


def seeded(seed: int, *place: str | int) -> torch.Generator:
    """A generator whose numbers depend on the seed and on the place in the run, and on nothing else."""
    digest = hashlib.sha256(repr((seed, *place)).encode()).digest()
    number = int.from_bytes(digest[:4], "little")  # torch's generator of the CPU takes 32 bits
    return torch.Generator().manual_seed(number)


def take_frames(clip: Clip, config: SamplingConfig, generator: torch.Generator) -> Taken:
    """Which frames are taken from the clip: those that are shown at evenly spaced times."""
    times = clip.footage.times
    gaps = config.num_frames - 1
    if config.stride is not None:
        interval = stride_seconds(clip, config.stride)
        starts = bisect_right(times, times[-1] - gaps * interval + _ROUNDING)
        if starts:
            start = times[int(torch.randint(starts, (), generator=generator))]
            return Taken(_shown(times, start, interval, config.num_frames), 1 / interval)
    interval = (times[-1] - times[0]) / gaps
    return Taken(_shown(times, times[0], interval, config.num_frames), 1 / interval)


def stride_seconds(clip: Clip, stride: int) -> float:
    """How far apart two frames are that are taken from the clip, in seconds."""
    stored_frames = stride * clip.fps / min(max(clip.fps, 24.0), 30.0)
    return max(1, round(stored_frames)) / clip.fps


def is_long_enough(clip: Clip, config: SamplingConfig) -> bool:
    """Whether so many frames can be taken with the stride, so that the clip is not spread instead."""
    times, gaps = clip.footage.times, config.num_frames - 1
    if config.stride is None:
        return True
    return times[-1] - times[0] + _ROUNDING >= gaps * stride_seconds(clip, config.stride)


_ROUNDING = 2e-3
"""Seconds; some containers count milliseconds, so evenly spaced frames are off by up to one."""


def _shown(times: Sequence[float], start: float, interval: float, num_frames: int) -> tuple[int, ...]:
    return tuple(bisect_right(times, start + i * interval + _ROUNDING) - 1 for i in range(num_frames))


def _shuffled(count: int, seed: int, *place: str | int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=seeded(seed, *place)).tolist()
    return order

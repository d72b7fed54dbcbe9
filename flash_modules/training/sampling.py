"""Which clip a step trains on, and which frames are taken from it.

Not in the paper (FLASH, arXiv:2503.00276): all of it. The stride and the spread are AnimateDiff's.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .clips import Clip, Clips, Skipped


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How frames are taken from a clip."""

    num_frames: int = 16
    stride: int | None = 4
    """One of so many frames, from a random start, in clips of 24 to 30 frames per second (AnimateDiff); in
    slower and faster ones what lasts as long. A clip too short for that is spread evenly, from end to end.
    None spreads every clip."""
    fps: float | None = None
    """So many frames a second of real time, from a random start, whatever the stride; clips are never slowed
    down: a short one gives fewer frames, and one with fewer frames a second shows some again."""
    frames_step: int = 1
    """With `fps`: of a short clip one frame is taken and then a multiple of so many, as a video's VAE needs
    them."""

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise ValueError(f"A video needs 2 frames or more, but `num_frames` is {self.num_frames}.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"`stride` must be 1 or more, but it is {self.stride}.")
        if self.fps is not None and not 0.0 < self.fps < math.inf:
            raise ValueError(f"`fps` must be a number above 0, but it is {self.fps}: 24 is usual.")
        if (self.num_frames - 1) % self.frames_step:
            raise ValueError(
                f"`num_frames` must be 1 more than a multiple of {self.frames_step}, but it is "
                f"{self.num_frames}: {self.whole_frames(self.num_frames)} would do."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All of it, for the settings of a run; what came later is told only where it is used."""
        told = {"num_frames": self.num_frames, "stride": self.stride}
        return told if self.fps is None else {**told, "fps": self.fps, "frames_step": self.frames_step}

    def whole_frames(self, count: int) -> int:
        """The most frames that can be taken where there are so many: 1 and a multiple of `frames_step`."""
        return (count - 1) // self.frames_step * self.frames_step + 1


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
    if config.fps is not None:
        return _in_real_time(times, 1 / config.fps, frames_in_real_time(clip, config), generator)
    gaps = config.num_frames - 1
    if config.stride is not None:
        interval = stride_seconds(clip, config.stride)
        if _starts(times, interval, config.num_frames):
            return _in_real_time(times, interval, config.num_frames, generator)
    interval = (times[-1] - times[0]) / gaps
    return Taken(_shown(times, times[0], interval, config.num_frames), 1 / interval)


def frames_in_real_time(clip: Clip, config: SamplingConfig) -> int:
    """How many frames are taken of the clip with `fps`.

    Raises ValueError, with the reason, if it is too short for the fewest: one and `frames_step`.
    """
    assert config.fps is not None
    times, fewest = clip.footage.times, 1 + config.frames_step
    there = math.floor((times[-1] - times[0] + _ROUNDING) * config.fps) + 1
    if there < fewest:
        raise ValueError(
            f"it lasts {clip.duration:.2f} s, and the fewest frames that can be learned from, {fewest} at "
            f"{config.fps:g} a second, last {fewest / config.fps:.2f} s"
        )
    return config.whole_frames(min(there, config.num_frames))


def long_enough(clips: Clips, config: SamplingConfig) -> Clips:
    """The clips without those that are too short for `fps`, which are skipped. ValueError if none is left."""
    if config.fps is None:
        return clips
    used: list[Clip] = []
    skipped = list(clips.skipped)
    for clip in clips.used:
        try:
            frames_in_real_time(clip, config)
            used.append(clip)
        except ValueError as error:
            skipped.append(Skipped(clip.path, str(error)))
    if not used:
        raise ValueError(f"No clip is long enough: of {skipped[-1].path.name} {skipped[-1].reason}.")
    return replace(clips, used=tuple(used), skipped=tuple(skipped))


def _in_real_time(
    times: Sequence[float], interval: float, num_frames: int, generator: torch.Generator
) -> Taken:
    """So many frames at such intervals in seconds, from a random start."""
    start = times[int(torch.randint(_starts(times, interval, num_frames), (), generator=generator))]
    return Taken(_shown(times, start, interval, num_frames), 1 / interval)


def _starts(times: Sequence[float], interval: float, num_frames: int) -> int:
    """Frames from which so many others can be taken."""
    return bisect_right(times, times[-1] - (num_frames - 1) * interval + _ROUNDING)


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

"""Which clip a step trains on, and which frames are taken from it."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.training.clips import Clips
from flash_pack.flash_modules.training.sampling import (
    SamplingConfig,
    clip_at_step,
    long_enough,
    seeded,
    take_frames,
)
from flash_pack.tests.core.small_clips import clip, frames_shown, only_clip, write_video


def test_actions_are_balanced_and_all_their_clips_come() -> None:
    clips = [clip(9, 25, "jump", str(i)) for i in range(5)] + [clip(9, 25, "run", str(i)) for i in range(2)]
    order = [clip_at_step(clips, 7, step) for step in range(40)]
    for pair in zip(order[::2], order[1::2], strict=True):
        assert {clips[i].action for i in pair} == {"jump", "run"}
    assert sorted(Counter(order).values()) == [4] * 5 + [10] * 2
    jumps = [i for i in order if i < 5]
    for epoch in range(4):
        assert sorted(jumps[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert jumps[:5] != jumps[5:10]
    assert len({tuple(clip_at_step(clips, seed, step) for step in range(10)) for seed in range(5)}) == 5


def test_order_depends_on_seed_and_step_alone() -> None:
    clips = [clip(9, 25, "jump", str(i)) for i in range(5)]
    forwards = [clip_at_step(clips, 3, step) for step in range(12)]
    torch.manual_seed(99)
    backwards = [clip_at_step(clips, 3, step) for step in reversed(range(12))]
    assert forwards == backwards[::-1] == [1, 3, 2, 4, 0, 4, 3, 0, 1, 2, 1, 3]


@pytest.mark.parametrize(
    ("fps", "stride", "step"),
    [
        (24, 4, 4),
        (25, 4, 4),
        (30, 4, 4),
        (29.97, 4, 4),
        (60, 4, 8),
        (12, 4, 2),
        (8, 4, 1),
        (4, 4, 1),
        (25, 1, 1),
    ],
)
def test_stride_lasts_as_long_at_any_rate(fps: float, stride: int, step: int) -> None:
    taken = take_frames(clip(200, fps), SamplingConfig(num_frames=5, stride=stride), seeded(0))
    assert [b - a for a, b in zip(taken.indices, taken.indices[1:], strict=False)] == [step] * 4
    assert taken.fps == pytest.approx(fps / step)


def test_start_is_random_and_reaches_both_ends() -> None:
    config = SamplingConfig(num_frames=5, stride=4)
    taken = [take_frames(clip(20, 25), config, seeded(i)).indices for i in range(60)]
    assert {indices[0] for indices in taken} == {0, 1, 2, 3}  # the last window is 3, 7, ... 19
    assert taken == [take_frames(clip(20, 25), config, seeded(i)).indices for i in range(60)]


def test_short_clips_are_spread_from_end_to_end() -> None:
    config = SamplingConfig(num_frames=5, stride=4)
    for num_frames, indices in {17: (0, 4, 8, 12, 16), 16: (0, 3, 7, 11, 15), 3: (0, 0, 1, 1, 2)}.items():
        taken = take_frames(clip(num_frames, 25), config, seeded(0))
        assert taken.indices == indices
        assert taken.fps == pytest.approx(4 * 25 / (num_frames - 1))


def test_whole_clips_are_spread_from_end_to_end() -> None:
    taken = take_frames(clip(201, 25), SamplingConfig(num_frames=5, stride=None), seeded(0))
    assert (taken.indices, taken.fps) == ((0, 50, 100, 150, 200), pytest.approx(0.5))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_frames_of_a_variable_rate_are_picked_by_time(tmp_path: Path, suffix: str) -> None:
    """Ten frames at 25 per second, then ten at 10: evenly in time is 2.5 times denser in the second half."""
    times = [40 * i if i < 10 else 400 + 100 * (i - 10) for i in range(20)]
    write_video(tmp_path / f"a{suffix}", milliseconds=times)
    found = only_clip(tmp_path)
    taken = take_frames(found, SamplingConfig(num_frames=14, stride=None), seeded(0))
    assert taken.indices == (0, 2, 5, 7, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
    assert taken.fps == pytest.approx(10)
    assert frames_shown(found.read(taken.indices)) == list(taken.indices)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="A video needs 2 frames or more, but `num_frames` is 1"):
        SamplingConfig(num_frames=1)
    with pytest.raises(ValueError, match="`stride` must be 1 or more, but it is 0"):
        SamplingConfig(stride=0)


REAL = SamplingConfig(num_frames=49, fps=24.0, frames_step=4)


@pytest.mark.parametrize(
    ("stored", "fps", "frames"),
    [(300, 60, 49), (240, 24, 49), (48, 24, 45), (16, 16, 21), (49, 24, 49), (30, 30, 21), (6, 24, 5)],
)
def test_in_real_time_frames_are_as_far_apart_as_asked_whatever_the_clip(
    stored: int, fps: float, frames: int
) -> None:
    one = clip(stored, fps)
    for seed in range(5):
        taken = take_frames(one, REAL, seeded(seed))
        assert len(taken.indices) == frames
        assert taken.fps == 24.0
        start = taken.indices[0] / fps
        for i, index in enumerate(taken.indices):  # the frame that is shown at that moment
            assert index / fps <= start + i / 24 + 2e-3 < (index + 1) / fps + 2e-3


def test_in_real_time_a_window_begins_anywhere() -> None:
    starts = {take_frames(clip(240, 24), REAL, seeded(seed)).indices[0] for seed in range(300)}
    assert min(starts) < 8
    assert max(starts) > 180
    assert all(start + 48 <= 239 for start in starts)


def test_in_real_time_clips_that_are_too_short_are_skipped_with_the_reason() -> None:
    short, fine = clip(4, 24, "jump", "short"), clip(60, 24, "jump", "fine")
    with pytest.raises(ValueError, match=r"it lasts 0.17 s, and the fewest .* 5 at 24 a second, last 0.21 s"):
        take_frames(short, REAL, seeded(0))
    clips = long_enough(Clips((short, fine), ()), REAL)
    assert clips.used == (fine,)
    assert [one.path for one in clips.skipped] == [short.path]
    assert long_enough(Clips((short,), ()), SamplingConfig()).used == (short,)
    with pytest.raises(ValueError, match=r"No clip is long enough: of short.* it lasts 0.17 s"):
        long_enough(Clips((short,), ()), REAL)


def test_settings_of_runs_from_before_do_not_change() -> None:
    assert SamplingConfig().settings == {"num_frames": 16, "stride": 4}
    assert SamplingConfig(stride=None).settings == {"num_frames": 16, "stride": None}
    assert REAL.settings == {"num_frames": 49, "stride": 4, "fps": 24.0, "frames_step": 4}


def test_frames_that_a_video_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match="1 more than a multiple of 4, but it is 48: 45 would do"):
        SamplingConfig(num_frames=48, fps=24.0, frames_step=4)
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`fps` must be a number above 0"):
            SamplingConfig(fps=fps)

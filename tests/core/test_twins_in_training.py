"""Twins from elsewhere in a run: in the pool, on the sheet, in its settings and its exam."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig
from flash_pack.flash_modules.flash.training.exam import ExamConfig
from flash_pack.flash_modules.flash.training.export import learned_header
from flash_pack.flash_modules.flash.training.latent_pool import LatentPool, PoolConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.preview import preview_clips
from flash_pack.flash_modules.training.clips import Clip, Clips, clip_hashes
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.core.drawn_twins import as_clip, drawn
from flash_pack.tests.core.tiny_host import TinyHost

SIZE = 16
CONFIG = ActionTrainingConfig(
    method=MethodConfig(augment=AugmentConfig(size=SIZE)),
    sampling=SamplingConfig(num_frames=4),
    pool=PoolConfig(per_clip=6),
)


def with_negative(way: int, twin: Tensor | None = None) -> Clip:
    """A clip whose twin is its negative: pixel by pixel it tells which frame and place it shows."""
    video_FCHW = drawn(way, way)
    return replace(as_clip(video_FCHW, f"{way}"), twin=as_clip(1 - video_FCHW if twin is None else twin))


def start(clips: Sequence[Clip], config: ActionTrainingConfig = CONFIG) -> ActionTraining[TinyHost]:
    return ActionTraining(TinyHost(), clips, config)


def pool_of(clips: Sequence[Clip], folder: Path, config: ActionTrainingConfig = CONFIG) -> LatentPool:
    return start(clips, config).pool(folder)


def test_a_pair_is_the_clip_and_its_twin_at_the_same_frames_and_places(tmp_path: Path) -> None:
    """Neither blurred nor recoloured; of clips without a twin both are as they were."""
    pool = pool_of([with_negative(1), as_clip(drawn(2, 2))], tmp_path)
    plain = pool_of([replace(clip, twin=None) for clip in pool.clips], tmp_path)
    flips = set()
    for number in range(6):
        original_FCHW, twin_FCHW = pool.draw_videos(number, turn=number)
        torch.testing.assert_close(twin_FCHW, 1 - original_FCHW, atol=1e-6, rtol=0)
        assert torch.equal(original_FCHW, plain.draw_videos(number, turn=number)[0])
        flips.add(pool.draw(number, turn=number).augmentation.flip)
    assert flips == {True, False}
    for one, other in zip(pool.draw_videos(7, 1), plain.draw_videos(7, 1), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [(80, 120), (42, 62), (39, 60)])
def test_a_twin_of_another_size_is_cut_at_the_same_places(tmp_path: Path, size: tuple[int, int]) -> None:
    """Of a slope from 0 to 1 the pixels' own places are seen."""
    slope_FCHW = torch.linspace(0, 1, 60).expand(24, 3, 40, 60)
    twin_FCHW = interpolate(1 - slope_FCHW, size, mode="bilinear", antialias=True)
    pool = pool_of([replace(as_clip(slope_FCHW), twin=as_clip(twin_FCHW))], tmp_path)
    for number in range(6):
        original_FCHW, found_FCHW = pool.draw_videos(number, turn=0)
        assert original_FCHW.shape == found_FCHW.shape
        assert (original_FCHW + found_FCHW - 1).abs().max() < 0.01  # half a pixel of the clip


def test_the_sheet_shows_the_twin() -> None:
    lines: list[str] = []
    clips = Clips((with_negative(1),), ())
    sheet = preview_clips(clips, CONFIG.sampling, CONFIG.method.augment, seed=0, on_line=lines.append)
    pixels = np.asarray(sheet).astype(int)[:, 8 : 8 + 4 * 96]
    original, twin = pixels[26 : 26 + 96], pixels[26 + 96 : 26 + 192]
    assert np.abs(original + twin - 255).max() <= 1
    assert original.std() > 10


def test_a_run_with_other_twins_is_another_run() -> None:
    clip = with_negative(1)
    other = with_negative(1, drawn(1, 5))
    plain = replace(clip, twin=None)
    told = [start([one]).settings(1) for one in (plain, clip, other)]
    assert told[0]["clips"] == [{"action": "jump", "caption": "jump", "sha256": clip_hashes([plain])[0]}]
    for settings, one in zip(told[1:], (clip, other), strict=True):
        assert one.twin
        assert settings["clips"] == [{**told[0]["clips"][0], "twin_sha256": clip_hashes([one.twin])[0]}]
        assert {**settings, "clips": 0} == {**told[0], "clips": 0}
    assert told[1] != told[2]


def test_twins_without_pairs_are_refused() -> None:
    method = MethodConfig(twins=False, alignment=AlignmentConfig(tau=100, p=0))
    alone = replace(CONFIG, method=method)
    with pytest.raises(
        ValueError, match=r"have twins, but .* \(`twins` is off\) never shows them: switch it"
    ):
        start([with_negative(1)], alone).settings(1)
    start([as_clip(drawn(1, 1))], alone).settings(1)


def test_a_clip_that_is_kept_aside_takes_its_twin_along(tmp_path: Path) -> None:
    """No step sees either; the exam asks about the clip itself, and settings and file say so."""
    clips = [with_negative(way) for way in range(6)]
    training = start(clips, replace(CONFIG, exam=ExamConfig()))
    (aside,) = training.kept_aside
    assert aside.twin
    learned = [clip for clip in clips if clip is not aside]
    assert training.pool(tmp_path).clips == learned
    settings: dict[str, Any] = training.settings(1)
    assert [one["twin_sha256"] for one in settings["exam"]["clips"]] == clip_hashes([aside.twin])
    hashes = clip_hashes([clip.twin for clip in learned if clip.twin])
    assert [one["twin_sha256"] for one in settings["clips"]] == hashes
    assert training.learned(1).twin_hashes == tuple(hashes)
    exam = training.exam()
    assert exam
    bare = start([replace(clip, twin=None) for clip in clips], replace(CONFIG, exam=ExamConfig())).exam()
    assert bare
    assert exam() == bare()


def test_the_file_names_twins_where_there_are_some() -> None:
    clip = with_negative(1)
    assert clip.twin
    (sha256,) = clip_hashes([clip.twin])
    assert f'"twins_sha256": ["{sha256}"]' in learned_header(start([clip]).learned(1))["flash.data"]
    assert "twins" not in learned_header(start([replace(clip, twin=None)]).learned(1))["flash.data"]

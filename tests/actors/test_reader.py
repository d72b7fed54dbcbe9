from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from actors.judge.reader import (
    MIRRORED,
    WEIGHTS,
    Reader,
    actor_is_right,
    joint_distance,
    joint_places,
    load_reader,
    read_joints,
    read_looks,
)
from actors.judge.reader_training import _moved, joint_loss, look_loss, train
from actors.world.clips import clip_video, make_clip
from actors.world.looks import draw_look
from actors.world.motion import draw_motion
from actors.world.skeleton import JOINTS


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


def clip_of(action: str, motion: int, look: int, size: int = 128) -> tuple[Tensor, Tensor]:
    clip = make_clip(draw_motion(action, motion), draw_look(look), num_frames=8, size=size)
    return clip_video(clip), torch.from_numpy(clip.joints_FPJ2[:, 0])


def test_the_weights_are_small_and_finite() -> None:
    assert WEIGHTS.stat().st_size <= 2**20
    assert all(parameter.isfinite().all() for parameter in load_reader().parameters())


@pytest.mark.parametrize("action", ["running in place", "arm wave", "chopping wood", "gesturing"])
def test_joints_are_found_in_fresh_clips(reader: Reader, action: str) -> None:
    errors = [
        joint_distance(read_joints(reader, video_FHWC), true_FJ2)
        for video_FHWC, true_FJ2 in (clip_of(action, 500 + i, 600 + i) for i in range(3))
    ]
    assert np.mean(errors) < 6  # pixels of 128


def test_joints_are_in_pixels_of_the_video(reader: Reader) -> None:
    video_FHWC, true_FJ2 = clip_of("running in place", 500, 600, size=192)
    assert joint_distance(read_joints(reader, video_FHWC), true_FJ2) < 9


def test_the_right_person_is_the_left_one_in_a_mirror(reader: Reader) -> None:
    video_FHWC = clip_of("hugging human", 500, 600, size=96)[0]
    left_FJ2 = read_joints(reader, video_FHWC.flip(2))
    wanted_FJ2 = torch.stack([96 - left_FJ2[..., 0], left_FJ2[..., 1]], -1)[:, MIRRORED]
    torch.testing.assert_close(read_joints(reader, video_FHWC, right_person=True), wanted_FJ2)


def test_the_actor_is_found_on_both_sides() -> None:
    for mirrored in (False, True):
        motion = replace(draw_motion("hugging human", 1), mirrored=mirrored)
        clip = make_clip(motion, draw_look(1), num_frames=2, size=64)
        left_is_actor = bool((clip.masks_FHW[0, :, :32] == 1).any())
        assert actor_is_right(clip) != left_is_actor
    assert not actor_is_right(make_clip(draw_motion("push-up", 1), draw_look(1), num_frames=2, size=64))


def test_a_look_is_nearer_to_itself_in_another_motion_than_to_others(reader: Reader) -> None:
    one_LE, again_LE = (
        nnf.normalize(
            torch.stack([read_looks(reader, clip_of(action, 7, look)[0]).mean(0) for look in range(40, 48)])
        )
        for action in ("standing", "sprint run")
    )
    likeness_LL = one_LE @ again_LE.T
    others = likeness_LL[~torch.eye(8, dtype=torch.bool)]
    assert likeness_LL.diag().mean() > others.mean() + 0.4
    assert (likeness_LL.argmax(dim=1) == torch.arange(8)).float().mean() >= 0.75


def test_looks_have_unit_length(reader: Reader) -> None:
    length_F = read_looks(reader, torch.rand(3, 96, 112, 3)).norm(dim=1)
    torch.testing.assert_close(length_F, torch.ones(3))


def test_mirrored_twice_is_the_same_joint() -> None:
    assert [JOINTS[i] for i in MIRRORED][:4] == ["head", "neck", "pelvis", "r_shoulder"]
    assert [MIRRORED[i] for i in MIRRORED] == list(range(len(JOINTS)))


def test_distance_allows_an_exchange_of_left_and_right_in_the_whole_clip_only() -> None:
    true_FJ2 = 100 * torch.rand(4, len(JOINTS), 2)
    mixed_FJ2 = torch.cat([true_FJ2[:2, MIRRORED], true_FJ2[2:]])
    assert joint_distance(true_FJ2, true_FJ2) == 0.0
    assert joint_distance(true_FJ2[:, MIRRORED], true_FJ2) == 0.0
    assert joint_distance(mixed_FJ2, true_FJ2) > 5
    assert joint_distance(true_FJ2 + torch.tensor([3.0, 4.0]), true_FJ2) == pytest.approx(5.0, rel=1e-5)


def test_places_are_read_from_maps_to_a_fraction_of_a_cell() -> None:
    wanted_BJ2 = 20 + 88 * torch.rand(2, len(JOINTS), 2)
    axis = 4 * (torch.arange(32) + 0.5)
    logits_BJHW = -(
        (axis - wanted_BJ2[..., :1]).square()[..., None, :] + (axis - wanted_BJ2[..., 1:]).square()[..., None]
    ) / (2 * 4**2)
    assert (joint_places(logits_BJHW) - wanted_BJ2).abs().max() < 0.8


def test_places_lie_on_one_of_two_peaks_and_not_between() -> None:
    logits_BJHW = torch.full((1, 1, 32, 32), -9.0)
    logits_BJHW[0, 0, 10, 5], logits_BJHW[0, 0, 10, 25] = 3.0, 2.9
    torch.testing.assert_close(joint_places(logits_BJHW)[0, 0], torch.tensor([22.0, 42.0]), atol=0.5, rtol=0)


def test_joints_outside_of_the_picture_do_not_count() -> None:
    logits_BJHW, joints_BJ2 = torch.randn(2, len(JOINTS), 32, 32), 10 + 100 * torch.rand(2, len(JOINTS), 2)
    joints_BJ2[0, 3, 0] = -5.0
    kept = joint_loss(logits_BJHW, joints_BJ2)
    logits_BJHW[0, 3] = torch.randn(32, 32)
    torch.testing.assert_close(joint_loss(logits_BJHW, joints_BJ2), kept)


def test_look_loss_is_least_when_pairs_agree() -> None:
    looks_LE = nnf.normalize(torch.randn(6, 48), dim=1)
    assert look_loss(looks_LE.repeat_interleave(2, 0)) < 0.1
    assert look_loss(looks_LE.repeat(2, 1)) > 1


def test_augmented_joints_stay_on_their_pixels() -> None:
    """A dot at each joint is still near the joint after mirroring, turning, scaling and bending."""
    b, axis = 8, torch.arange(128) + 0.5
    places_BJ2 = (40 + 48 * torch.rand(b, 1, 2)).expand(b, len(JOINTS), 2)
    apart_BHW = (axis - places_BJ2[:, 0, :1])[:, None].square() + (axis - places_BJ2[:, 0, 1:])[
        ..., None
    ].square()
    moved_BCHW, moved_BPJ2 = _moved(torch.exp(-apart_BHW / 18)[:, None], places_BJ2[:, None])
    weight_BHW = moved_BCHW[:, 0] / moved_BCHW.sum((1, 2, 3))[:, None, None]
    centre_B2 = torch.stack([(weight_BHW.sum(1) * axis).sum(1), (weight_BHW.sum(2) * axis).sum(1)], -1)
    assert (centre_B2 - moved_BPJ2[:, 0, 0]).abs().max() < 0.6


def test_training_writes_what_load_reads_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "weights" / "reader.safetensors"
    first = train(file, minutes=0.01)
    again = load_reader(file)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    video_FHWC = torch.rand(1, 128, 128, 3)
    far = (read_looks(Reader(), video_FHWC) - read_looks(first, video_FHWC)).norm()
    assert (
        read_looks(train(file, minutes=0.001, resume=True), video_FHWC) - read_looks(first, video_FHWC)
    ).norm() < far

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from actors import (
    ACTIONS,
    EXTRA_MOTIONS,
    HELD_OUT_ACTIONS,
    JOINTS,
    SEEN_ACTIONS,
    WORDS,
    Clip,
    continuations,
    draw_look,
    draw_motion,
    make_clip,
)
from actors.__main__ import main
from actors.world.clips import make_cut_clip
from actors.world.looks import HELD_OUT_SCENE, HELD_OUT_STYLE, HELD_OUT_TEXTURE
from actors.world.motion import pose_track
from actors.world.skeleton import body_points

EVERYTHING = (*ACTIONS, *EXTRA_MOTIONS)


def clip_of(action: str, seed: int = 1, look: int = 2, **size: int) -> Clip:
    return make_clip(draw_motion(action, seed), draw_look(look), **size)


def test_there_are_the_papers_twelve_actions() -> None:
    assert len(ACTIONS) == 12
    assert set(SEEN_ACTIONS) | set(HELD_OUT_ACTIONS) == set(ACTIONS)
    assert not set(SEEN_ACTIONS) & set(HELD_OUT_ACTIONS)


def test_an_unknown_action_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(ValueError, match=r"no action 'backflip': choose one of push-up, .*hugging human"):
        draw_motion("backflip", 0)


@pytest.mark.parametrize("action", EVERYTHING)
def test_a_clip_is_the_same_every_time_and_moves(action: str) -> None:
    clip, again = clip_of(action), clip_of(action)
    assert clip.frames_FHW3.shape == (8, 128, 128, 3)
    np.testing.assert_array_equal(clip.frames_FHW3, again.frames_FHW3)
    assert (clip.frames_FHW3[0] != clip.frames_FHW3[-1]).any()


@pytest.mark.parametrize("action", EVERYTHING)
def test_another_seed_gives_another_motion_of_the_same_action(action: str) -> None:
    clip, other = clip_of(action, seed=1), clip_of(action, seed=2)
    assert np.abs(clip.joints_FPJ2 - other.joints_FPJ2).mean() > 1


@pytest.mark.parametrize("action", ["shoot dance", "push-up", "hugging human"])
def test_before_a_cut_the_same_person_is_elsewhere_in_the_same_place(action: str) -> None:
    for seed in range(6):
        motion, look = draw_motion(action, seed), draw_look(seed)
        clip, cut = make_clip(motion, look), make_cut_clip(motion, look)
        np.testing.assert_array_equal(cut.frames_FHW3[1:], clip.frames_FHW3[1:])
        np.testing.assert_array_equal(cut.joints_FPJ2[1:], clip.joints_FPJ2[1:])
        both_HW = (cut.masks_FHW[0] == 0) & (clip.masks_FHW[0] == 0)
        different_HW = (cut.frames_FHW3[0] != clip.frames_FHW3[0]).any(-1)
        different_HW = (different_HW & both_HW).astype(np.uint8)
        assert not cv2.erode(different_HW, np.ones((5, 5))).any()  # thicker than an edge
        moved = np.abs((cut.joints_FPJ2 - clip.joints_FPJ2)[0, 0, :, 0].mean()) / clip.height
        assert 0.15 < moved < 0.6
        assert np.isnan(cut.flow_FHW2[0]).all()
        assert np.isfinite(cut.flow_FHW2[1:]).all()


def test_a_cut_clip_of_one_frame_is_the_frame_before_the_cut() -> None:
    motion, look = draw_motion("push-up", 1), draw_look(1)
    (alone,) = make_cut_clip(motion, look, num_frames=1).frames_FHW3
    np.testing.assert_array_equal(alone, make_cut_clip(motion, look).frames_FHW3[0])


def test_the_command_writes_cut_clips_too(tmp_path: Path) -> None:
    words = ["clips", "--action", "push-up", "--num", "1", "--truth", "--out"]
    assert main([*words, str(tmp_path / "plain")]) == main([*words, str(tmp_path / "cut"), "--cut"]) == 0
    plain, cut = (np.load(tmp_path / folder / "push-up-000.npz")["joints"] for folder in ("plain", "cut"))
    np.testing.assert_array_equal(plain[1:], cut[1:])
    assert (plain[0] != cut[0]).any()


def test_the_command_films_from_nearby(tmp_path: Path) -> None:
    words = ["clips", "--action", "arm wave", "--num", "1", "--truth", "--seed", "2", "--out", str(tmp_path)]
    assert main([*words, "--size", "96", "--close"]) == 0
    written = np.load(tmp_path / "arm-wave-000.npz")["joints"]
    clip = make_clip(draw_motion("arm wave", 2000, close=True), draw_look(2000), size=96)
    np.testing.assert_array_equal(written, clip.joints_FPJ2)


def test_a_bigger_picture_shows_the_same() -> None:
    small, big = clip_of("arm wave", size=64), clip_of("arm wave", size=192)
    np.testing.assert_allclose(small.joints_FPJ2 * 3, big.joints_FPJ2, atol=1e-3)
    shrunk = big.frames_FHW3.reshape(8, 64, 3, 64, 3, 3).mean((2, 4))
    assert np.abs(shrunk - small.frames_FHW3).mean() < 6


@pytest.mark.parametrize("action", ["sprint run", "hugging human"])
def test_a_look_changes_no_motion_and_a_motion_no_look(action: str) -> None:
    motion = draw_motion(action, 3)
    clip, other = (make_clip(motion, draw_look(seed)) for seed in (4, 5))
    np.testing.assert_array_equal(clip.joints_FPJ2, other.joints_FPJ2)
    assert np.abs(clip.frames_FHW3.astype(float) - other.frames_FHW3).mean() > 10
    assert clip.caption.split(",")[0] == other.caption.split(",")[0]
    third = make_clip(draw_motion(action, 6), draw_look(4))
    assert clip.caption == third.caption


@pytest.mark.parametrize("action", ACTIONS)
def test_continuations_share_the_first_frame_and_part_afterwards(action: str) -> None:
    motion = draw_motion(action, 7)
    first, *others = (make_clip(m, draw_look(8)) for m in [motion, *continuations(motion, 3, seed=9)])
    for clip in others:
        np.testing.assert_array_equal(clip.frames_FHW3[0], first.frames_FHW3[0])
        assert np.abs(clip.joints_FPJ2 - first.joints_FPJ2).max() > 0.3
    assert continuations(motion, 3, seed=9) == continuations(motion, 3, seed=9)


@pytest.mark.parametrize("action", ACTIONS)
def test_joints_lie_on_their_person(action: str) -> None:
    for seed in range(3):
        clip = clip_of(action, seed)
        for person, label in zip(range(clip.joints_FPJ2.shape[1]), (1, 2), strict=False):
            hit = total = 0
            for f in range(8):
                for x, y in clip.joints_FPJ2[f, person]:
                    if 1 <= x < 127 and 1 <= y < 127:
                        box = clip.masks_FHW[f, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2]
                        total += 1
                        hit += bool((box > 0).any())
                        assert label in clip.masks_FHW[f]
            assert hit / total > 0.97, action


def test_a_mirrored_clip_is_the_picture_in_a_mirror_with_left_and_right_exchanged() -> None:
    motion, look = draw_motion("chopping wood", 3), draw_look(4)
    plain, mirrored = (make_clip(replace(motion, mirrored=flag), look) for flag in (False, True))
    np.testing.assert_array_equal(plain.frames_FHW3, mirrored.frames_FHW3[:, :, ::-1])
    left, right = JOINTS.index("l_wrist"), JOINTS.index("r_wrist")
    np.testing.assert_allclose(plain.joints_FPJ2[:, 0, left, 0], 128 - mirrored.joints_FPJ2[:, 0, right, 0])
    np.testing.assert_allclose(plain.flow_FHW2[..., 0], -mirrored.flow_FHW2[:, :, ::-1, 0], atol=1e-5)


@pytest.mark.parametrize("action", EVERYTHING)
def test_flow_leads_to_the_same_point_of_the_next_frame(action: str) -> None:
    """Where a pixel is well inside one thing now and later, following the flow finds its color again."""
    clip = make_clip(draw_motion(action, 5), draw_look(6), size=128)
    frames = clip.frames_FHW3.astype(np.float32)
    y, x = np.mgrid[0:128, 0:128]
    moved, still = [], []
    for f in range(7):
        to_x = np.clip(np.rint(x + clip.flow_FHW2[f, ..., 0]), 0, 127).astype(int)
        to_y = np.clip(np.rint(y + clip.flow_FHW2[f, ..., 1]), 0, 127).astype(int)
        moving = (np.hypot(*np.moveaxis(clip.flow_FHW2[f], -1, 0)) > 2) & (clip.masks_FHW[f] == 1)
        same = clip.masks_FHW[f + 1][to_y, to_x] == 1
        moved += [np.abs(frames[f + 1][to_y, to_x] - frames[f])[moving & same].mean(-1)]
        still += [np.abs(frames[f + 1] - frames[f])[moving].mean(-1)]
    if sum(map(len, moved)) > 200:
        assert np.concatenate(moved).mean() < 0.6 * np.concatenate(still).mean()


def test_background_flow_is_the_cameras_movement() -> None:
    look = replace(draw_look(2), scene="street", vignette=0)
    clip = make_clip(draw_motion("sprint run", 2), look)
    frames = clip.frames_FHW3.astype(np.float32)
    y, x = np.mgrid[20:100, 8:120]
    errors, still = [], []
    for f in range(7):
        to_x = np.rint(x + clip.flow_FHW2[f, 20:100, 8:120, 0]).astype(int)
        to_y = np.rint(y + clip.flow_FHW2[f, 20:100, 8:120, 1]).astype(int)
        inside = (to_x >= 0) & (to_x < 128) & (clip.masks_FHW[f, 20:100, 8:120] == 0)
        inside &= clip.masks_FHW[f + 1][to_y.clip(0, 127), to_x.clip(0, 127)] == 0
        there = frames[f + 1][to_y.clip(0, 127), to_x.clip(0, 127)]
        errors.append(np.abs(there - frames[f, 20:100, 8:120])[inside].mean())
        still.append(np.abs(frames[f + 1] - frames[f])[20:100, 8:120][inside].mean())
    assert np.mean(errors) < 0.5 * np.mean(still)


@pytest.mark.parametrize("action", EVERYTHING)
def test_captions_consist_of_known_words(action: str) -> None:
    for seed in range(20):
        text = make_clip(
            draw_motion(action, seed), draw_look(seed, held_out=seed % 2 == 1), num_frames=2
        ).caption
        assert set(text.replace(",", " , ").split()) <= set(WORDS)


def test_held_out_looks_have_something_that_the_others_never_have() -> None:
    plain, strange = ([draw_look(seed, held_out) for seed in range(300)] for held_out in (False, True))
    assert not any(look.held_out for look in plain)
    assert all(look.held_out for look in strange)
    assert {HELD_OUT_STYLE} == {look.style for look in strange} - {look.style for look in plain}
    assert {HELD_OUT_SCENE} == {look.scene for look in strange} - {look.scene for look in plain}
    textures = [{look.actor.top_texture for look in looks} for looks in (plain, strange)]
    assert textures[1] - textures[0] == {HELD_OUT_TEXTURE}


@pytest.mark.parametrize("action", EVERYTHING)
def test_the_lowest_point_of_a_body_stands_on_the_ground_or_above(action: str) -> None:
    motion = draw_motion(action, 11)
    pose = pose_track(motion, 16)
    points = body_points(pose, motion.body)
    lowest = np.min([track[:, 1] for name, track in points.items() if "head_" not in name], axis=0)
    np.testing.assert_allclose(lowest, pose["lift"], atol=0.08)


def test_two_people_hug_and_everybody_else_is_alone() -> None:
    for action in EVERYTHING:
        people = clip_of(action).joints_FPJ2.shape[1]
        assert people == (2 if action == "hugging human" else 1)
    clip = clip_of("hugging human", seed=3)
    apart, together = (
        abs(clip.joints_FPJ2[f, 0, :, 0].mean() - clip.joints_FPJ2[f, 1, :, 0].mean()) for f in (0, 7)
    )
    assert together < 0.5 * apart


@pytest.mark.parametrize("action", EVERYTHING)
def test_from_nearby_what_people_do_fills_the_picture(action: str) -> None:
    for seed in range(3):
        motion = draw_motion(action, seed, close=True)
        clip = make_clip(motion, draw_look(seed), num_frames=16, size=96)
        assert 0.64 < clip.height / 96 < 0.96
        joints_N2 = clip.joints_FPJ2.reshape(-1, 2) / 96
        inside_N = ((joints_N2 > 0) & (joints_N2 < 1)).all(axis=1)
        assert inside_N.mean() > 0.97
        assert np.ptp(joints_N2, axis=0).max() > (0.45 if action == "canoeing sprint" else 0.55)


def test_from_nearby_all_continuations_in_all_looks_are_seen_alike() -> None:
    for action in ACTIONS:
        motion = draw_motion(action, 1, close=True)
        first, *others = (make_clip(one, draw_look(2)) for one in continuations(motion, 3, 5))
        assert first.height == others[0].height
        for other in others:
            np.testing.assert_array_equal(first.frames_FHW3[0], other.frames_FHW3[0])
        other_look = make_clip(motion, draw_look(9, held_out=True))
        np.testing.assert_array_equal(other_look.joints_FPJ2[0], first.joints_FPJ2[0])


def test_from_nearby_the_same_is_done() -> None:
    near, usual = draw_motion("arm wave", 3, close=True), draw_motion("arm wave", 3)
    assert replace(near, camera=usual.camera) == usual

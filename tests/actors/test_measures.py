from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.judge.measures import Scores, flow, gap_closed, markdown_table, mean_looks, read_standard, score
from actors.judge.reader import Reader, load_reader
from actors.world.clips import Clip, clip_video, make_clip
from actors.world.looks import Look, draw_look
from actors.world.motion import continuations, draw_motion

F = 8
LOOK, OTHER_LOOK = draw_look(21), draw_look(22)
MOTION = draw_motion("chopping wood", 3)
DRAWS = continuations(MOTION, 6, seed=4)


def clip(motion: object, look: Look = LOOK) -> Clip:
    return make_clip(motion, look, num_frames=F, size=128)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


@pytest.fixture(scope="module")
def truths() -> list[Clip]:
    return [clip(motion) for motion in DRAWS[:5]]


@pytest.fixture(scope="module")
def training_looks(reader: Reader) -> Tensor:
    clips = [clip(draw_motion("chopping wood", 30 + i), draw_look(30 + i)) for i in range(3)]
    return mean_looks(reader, [*clips, clip(draw_motion("push-up", 5), OTHER_LOOK)])


@pytest.fixture(scope="module")
def scored(reader: Reader, truths: list[Clip], training_looks: Tensor) -> dict[str, Scores]:
    """Scores of made videos: one thing is wrong with each but the first."""
    true_FHWC = clip_video(clip(DRAWS[5]))
    other_motion = replace(draw_motion("ice bucket challenge", 3), mirrored=MOTION.mirrored)
    videos = {
        "true": true_FHWC,
        "still": true_FHWC[:1].expand(F, -1, -1, -1),
        "shuffled": true_FHWC[[0, 5, 2, 7, 4, 1, 6, 3]],
        "other motion": clip_video(clip(other_motion)),
        "other look": torch.cat([true_FHWC[:1], clip_video(clip(DRAWS[5], OTHER_LOOK))[1:]]),
    }
    standard = read_standard(truths, reader=reader)
    return {
        name: score(video_FHWC, standard, training_looks, reader=reader)
        for name, video_FHWC in videos.items()
    }


def test_a_true_continuation_scores_near_the_floor(scored: dict[str, Scores]) -> None:
    true = scored["true"]
    assert true.joint_error < true.joint_floor + 0.3 * (true.still_error - true.joint_floor)
    assert true.flow_cosine > 0.5
    assert true.recognised >= 0.6
    assert true.likeness > 0.8
    assert true.leak < 0.35


def test_a_still_picture_has_the_still_error_no_flow_and_the_best_likeness(scored: dict[str, Scores]) -> None:
    still, true = scored["still"], scored["true"]
    assert still.joint_error == pytest.approx(still.still_error, rel=1e-4)
    assert still.joint_error > 1.5 * true.joint_error
    assert abs(still.flow_cosine) < 0.1
    assert still.recognised == 0.0
    assert still.likeness == pytest.approx(1.0, abs=1e-4)
    assert still.leak == pytest.approx(0.0, abs=1e-3)
    assert still.consistency > true.consistency


def test_shuffled_frames_are_worse_in_motion_and_not_in_look(scored: dict[str, Scores]) -> None:
    shuffled, true = scored["shuffled"], scored["true"]
    assert shuffled.joint_error > 1.3 * true.joint_error
    assert shuffled.flow_cosine < true.flow_cosine - 0.2
    assert shuffled.likeness == pytest.approx(true.likeness, abs=1e-4)


def test_another_motion_is_worse_in_joints_and_not_in_look(scored: dict[str, Scores]) -> None:
    other, true = scored["other motion"], scored["true"]
    assert other.joint_error > 2 * true.joint_error
    assert other.flow_cosine < true.flow_cosine - 0.2
    assert other.recognised == 0.0
    assert other.likeness > true.likeness - 0.15
    assert other.leak < 0.4


def test_another_look_is_worse_in_look_and_leak_and_not_in_joints(scored: dict[str, Scores]) -> None:
    other, true = scored["other look"], scored["true"]
    assert other.likeness < true.likeness - 0.3
    assert other.leak > 0.6
    assert other.joint_error < true.joint_error + 0.5 * (true.still_error - true.joint_floor)
    assert other.jump_ratio > 1.5 * true.jump_ratio


def test_estimated_flow_is_like_the_true_one(truths: list[Clip]) -> None:
    actor_FHW = truths[0].masks_FHW[:-1] == 1
    found, true = flow(clip_video(truths[0]))[actor_FHW], truths[0].flow_FHW2[actor_FHW]
    assert (found * true).sum() / np.linalg.norm(found) / np.linalg.norm(true) > 0.5


def test_gap_closed_is_0_before_learning_and_1_at_the_floor() -> None:
    assert [gap_closed(20.0, after, 4.0) for after in (20.0, 12.0, 4.0)] == [0.0, 0.5, 1.0]


def test_the_table_has_mean_spread_and_gap(scored: dict[str, Scores]) -> None:
    better = replace(scored["still"], joint_error=0.25 * scored["still"].joint_error)
    table = markdown_table(
        {"one": [scored["true"]], "two": [scored["still"], better]}, before="two"
    ).splitlines()
    assert len(table) == 4
    assert {line.count("|") for line in table} == {13}
    assert table[0].startswith("|  | joint error, % ↓ | floor, % |")
    assert f"| one | {scored['true'].joint_error:.3g} | " in table[2]
    mean, spread = 0.625 * scored["still"].joint_error, 0.75 / 2**0.5 * scored["still"].joint_error
    assert f"| two | {mean:.3g} ± {spread:.2g} | " in table[3]
    assert table[3].endswith("0% |")


def test_truths_of_another_length_are_refused(
    reader: Reader, truths: list[Clip], training_looks: Tensor
) -> None:
    video_FHWC = clip_video(truths[0])
    with pytest.raises(ValueError, match=r"\(7, 128, 128, 3\) and a true continuation \(8, 128, 128, 3\)"):
        score(video_FHWC[:7], read_standard(truths, reader=reader), training_looks, reader=reader)
    with pytest.raises(ValueError, match="two or more true continuations, but there are 1"):
        score(video_FHWC, read_standard(truths[:1], reader=reader), training_looks, reader=reader)

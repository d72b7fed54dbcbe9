import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from flash_pack.flash_modules.evaluation.flow import dense_flow, sampled, warped
from flash_pack.flash_modules.evaluation.motion import (
    flicker,
    motion_agreement,
    motion_histogram_distance,
    track_steps,
)
from flash_pack.tests.core.made_videos import (
    CIRCLE,
    DOWN,
    RIGHT,
    H,
    W,
    noisy,
    scene,
    shuffled,
    still,
    texture,
)


@pytest.mark.parametrize("shift", [(2, 0), (0, -3), (5, 4)])
def test_the_flow_of_a_shifted_picture_is_the_shift(shift: tuple[int, int]) -> None:
    large_HWC = blurred(texture(3, 96, 128))
    x, y = shift
    one_HWC, then_HWC = large_HWC[16:80, 16:112], large_HWC[16 - y : 80 - y, 16 - x : 112 - x]
    inner_2HW = dense_flow(torch.stack([one_HWC, then_HWC]))[0, :, 8:-8, 8:-8]
    errors_HW = (inner_2HW - torch.tensor(shift)[:, None, None]).norm(dim=0)
    assert errors_HW.median() < 0.1
    assert (errors_HW < 1).float().mean() > 0.9


def blurred(picture_HWC: Tensor) -> Tensor:
    return nnf.avg_pool2d(picture_HWC.permute(2, 0, 1)[None], 5, 1, 2)[0].permute(1, 2, 0)


def test_the_flow_is_that_of_the_disc_and_none_elsewhere() -> None:
    flow_F2HW = dense_flow(scene(RIGHT))
    for f, (x, y) in enumerate(RIGHT[:-1]):
        inside_2HW = flow_F2HW[f, :, int(y) - 5 : int(y) + 6, int(x) - 5 : int(x) + 6]
        assert inside_2HW[0].mean().item() == pytest.approx(4.0, abs=0.3)
        assert inside_2HW[1].abs().mean() < 0.3
    assert flow_F2HW[:, :, :, -8:].abs().max() < 0.05


def test_values_between_pixels_equal_linear_interpolation_by_hand() -> None:
    frame_1CHW = torch.rand(1, 2, 4, 5, dtype=torch.float64)
    place = torch.tensor([[[[2.25, 1.5], [9.0, -3.0]]]], dtype=torch.float64)
    found_1C12 = sampled(frame_1CHW, place)
    top_C = 0.75 * frame_1CHW[0, :, 1, 2] + 0.25 * frame_1CHW[0, :, 1, 3]
    bottom_C = 0.75 * frame_1CHW[0, :, 2, 2] + 0.25 * frame_1CHW[0, :, 2, 3]
    torch.testing.assert_close(found_1C12[0, :, 0, 0], (top_C + bottom_C) / 2)
    torch.testing.assert_close(found_1C12[0, :, 0, 1], frame_1CHW[0, :, 0, 4])  # the edge's


def test_warping_brings_the_next_frame_to_where_the_flow_begins() -> None:
    frame_1CHW = torch.rand(1, 3, 6, 7)
    flow_12HW = torch.zeros(1, 2, 6, 7)
    flow_12HW[:, 0] = 2.0
    torch.testing.assert_close(warped(frame_1CHW, flow_12HW)[..., :5], frame_1CHW[..., 2:], atol=1e-5, rtol=0)


def test_tracks_follow_the_disc() -> None:
    steps_NF2 = track_steps(scene(RIGHT)) * math.hypot(H, W)
    on_disc = 8 * 16 + 3  # the grid's point nearest to (20, 32)
    torch.testing.assert_close(steps_NF2[on_disc].sum(dim=0), torch.tensor([28.0, 0.0]), atol=1.5, rtol=0)
    assert steps_NF2[-1].abs().max() < 0.05


def slow_agreement(one_NF2: Tensor, other_MF2: Tensor) -> float:
    def step_agreement(a: Tensor, b: Tensor) -> float:
        a_moves, b_moves = a.norm() >= 1e-3, b.norm() >= 1e-3
        if not a_moves or not b_moves:
            return float(a_moves == b_moves)
        return ((a @ b) / (a.norm() * b.norm())).item()

    def one_way(own: Tensor, others: Tensor) -> float:
        total = weights = 0.0
        for track in own:
            best = max(
                sum(step_agreement(a, b) for a, b in zip(track, other, strict=True)) / len(track)
                for other in others
            )
            weight = sum(step.norm().item() for step in track if step.norm() >= 1e-3)
            total, weights = total + weight * best, weights + weight
        return total / weights

    return (one_way(one_NF2, other_MF2) + one_way(other_MF2, one_NF2)) / 2


def test_agreement_equals_its_formula_by_loops() -> None:
    one_NF2, other_MF2 = 0.01 * torch.randn(5, 3, 2), 0.01 * torch.randn(7, 3, 2)
    one_NF2[0, 1], other_MF2[2, 1], other_MF2[3] = 0.0, 1e-4, 0.0
    wanted = slow_agreement(one_NF2, other_MF2)
    assert motion_agreement(one_NF2, other_MF2) == pytest.approx(wanted, abs=1e-6)


def slow_histogram(steps_NF2: Tensor) -> list[list[float]]:
    histogram = [[0.0] * 5 for _ in range(8)]
    for x, y in steps_NF2.reshape(-1, 2).tolist():
        length = math.hypot(x, y)
        if length < 1e-3:
            continue
        turn = (math.atan2(y, x) % (2 * math.pi)) / (2 * math.pi) * 8
        speed = min(4, int(math.log2(length / 1e-3)))
        low = int(turn)
        histogram[low % 8][speed] += length * (1 - (turn - low))
        histogram[(low + 1) % 8][speed] += length * (turn - low)
    return histogram


def changes(steps_NF2: Tensor) -> Tensor:
    return steps_NF2[:, 1:] - steps_NF2[:, :-1]


def test_histogram_distance_equals_its_formula_by_loops() -> None:
    one_NF2, other_MF2 = 0.01 * torch.randn(5, 4, 2), 0.01 * torch.randn(7, 4, 2)
    one_NF2[0, 1] = 0.0
    distances = []
    for a, b in ((one_NF2, other_MF2), (changes(one_NF2), changes(other_MF2))):
        pairs = [
            (p, q)
            for rows in zip(slow_histogram(a), slow_histogram(b), strict=True)
            for p, q in zip(*rows, strict=True)
        ]
        distances.append(sum(abs(p - q) for p, q in pairs) / sum(p + q for p, q in pairs))
    wanted = sum(distances) / 2
    assert motion_histogram_distance(one_NF2, other_MF2) == pytest.approx(wanted, abs=1e-5)


def test_motion_is_known_again_in_another_look_and_not_in_another_motion() -> None:
    true = track_steps(scene(CIRCLE))
    made = {
        "itself": scene(CIRCLE),
        "other look": scene(CIRCLE, look=7),
        "noisy": noisy(scene(CIRCLE), 0.05),
        "other motion": scene(DOWN),
        "shuffled": shuffled(scene(CIRCLE)),
        "still": still(scene(CIRCLE)),
    }
    agreement = {name: motion_agreement(track_steps(video), true) for name, video in made.items()}
    distance = {name: motion_histogram_distance(track_steps(video), true) for name, video in made.items()}
    assert agreement["itself"] == pytest.approx(1.0, abs=1e-5)
    assert distance["itself"] == pytest.approx(0.0, abs=1e-5)
    assert agreement["other look"] > max(agreement["other motion"], agreement["shuffled"]) + 0.15
    assert distance["other look"] < min(distance["other motion"], distance["shuffled"]) - 0.15
    assert agreement["still"] == 0.0
    assert distance["still"] == 1.0
    assert agreement["noisy"] < agreement["itself"]


def test_two_videos_at_rest_agree() -> None:
    steps_NF2 = track_steps(still(scene()))
    assert motion_agreement(steps_NF2, steps_NF2) == 1.0
    assert motion_histogram_distance(steps_NF2, steps_NF2) == 0.0


def test_flicker_sees_alternating_light_and_noise_but_not_motion() -> None:
    video_FHWC = scene(RIGHT)
    alternating_FHWC = video_FHWC.clone()
    alternating_FHWC[1::2] *= 0.9
    assert flicker(still(video_FHWC)) == pytest.approx(0.0, abs=1e-4)
    assert flicker(video_FHWC) < 0.8
    assert flicker(alternating_FHWC) > 2 * flicker(video_FHWC) + 1
    assert flicker(noisy(video_FHWC, 0.1)) > flicker(noisy(video_FHWC, 0.05)) > flicker(video_FHWC) + 1


def test_videos_of_other_lengths_are_refused() -> None:
    steps_NF2 = track_steps(scene())
    for measure in (motion_agreement, motion_histogram_distance):
        with pytest.raises(ValueError, match="have 8 and 6 frames: cut both to the same number"):
            measure(steps_NF2, steps_NF2[:, :5])
    with pytest.raises(ValueError, match="2 frames: cut both to the same number, 3 or more"):
        motion_histogram_distance(steps_NF2[:, :1], steps_NF2[:, :1])

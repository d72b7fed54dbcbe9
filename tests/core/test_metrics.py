import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import Tensor

from flash_pack.flash_modules.evaluation.looks import reference_likeness
from flash_pack.flash_modules.evaluation.metrics import (
    first_frame_transition,
    psnr,
    relative_sharpness,
    ssim,
    temporal_consistency,
)

F, H, W = 6, 40, 56


def walk(colour: tuple[float, float, float] = (0.9, 0.2, 0.1), ground: float = 0.3) -> Tensor:
    """A striped square that moves three pixels per frame on a grey ground with lines."""
    video_FHWC = torch.full((F, H, W, 3), ground)
    video_FHWC[:, :, ::7] += 0.2
    for f in range(F):
        square_HWC = video_FHWC[f, 12:28, 5 + 3 * f : 21 + 3 * f]
        square_HWC[:] = torch.tensor(colour)
        square_HWC[::4] = 1.0
    return video_FHWC


def blurred(video_FHWC: Tensor) -> Tensor:
    frames_FCHW = nnf.pad(video_FHWC.permute(0, 3, 1, 2), (2, 2, 2, 2), mode="replicate")
    return nnf.avg_pool2d(frames_FCHW, 5, stride=1).permute(0, 2, 3, 1)


def still() -> Tensor:
    return walk()[:1].expand(F, -1, -1, -1)


def shuffled() -> Tensor:
    return walk()[[0, 4, 1, 5, 2, 3]]


def test_psnr_is_the_mean_squared_error_in_decibels() -> None:
    video_FHWC, noise_FHWC = torch.rand(2, F, H, W, 3, dtype=torch.float64)
    error = sum((a - b) ** 2 for a, b in zip(video_FHWC.flatten(), noise_FHWC.flatten(), strict=True))
    wanted = 10 * math.log10(video_FHWC.numel() / error.item())
    assert psnr(video_FHWC, noise_FHWC) == pytest.approx(wanted, rel=1e-9)
    assert psnr(video_FHWC, video_FHWC) == math.inf


def test_ssim_of_one_window_equals_its_formula() -> None:
    video_FHWC, truth_FHWC = torch.rand(2, 1, 11, 11, 3, dtype=torch.float64)
    line = torch.tensor([math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)], dtype=torch.float64)
    weights = (line[:, None] * line[None] / line.sum() ** 2)[None, :, :, None]
    mean = lambda values: (weights * values).sum((1, 2))  # noqa: E731
    a, b = mean(video_FHWC), mean(truth_FHWC)
    var_a, var_b = mean(video_FHWC**2) - a**2, mean(truth_FHWC**2) - b**2
    cov = mean(video_FHWC * truth_FHWC) - a * b
    wanted = (2 * a * b + 1e-4) * (2 * cov + 9e-4) / ((a**2 + b**2 + 1e-4) * (var_a + var_b + 9e-4))
    assert ssim(video_FHWC, truth_FHWC) == pytest.approx(wanted.mean().item(), abs=1e-6)


def test_ssim_and_psnr_fall_with_blur_and_with_other_motion() -> None:
    for measure in (ssim, psnr):
        assert measure(walk(), walk()) > measure(blurred(walk()), walk())
        assert measure(walk(), walk()) > measure(shuffled(), walk())


def test_likeness_is_1_for_the_reference_itself() -> None:
    torch.testing.assert_close(reference_likeness(still(), walk()[:1]), torch.ones(F))


def test_likeness_hardly_sees_motion_but_sees_another_look() -> None:
    moved_F = reference_likeness(walk(), walk()[:1])
    other_clothes_F = reference_likeness(walk(colour=(0.1, 0.2, 0.9)), walk()[:1])
    other_ground_F = reference_likeness(walk(ground=0.5), walk()[:1])
    assert moved_F.min() > 0.95
    assert other_clothes_F.max() < moved_F.min() - 0.05
    assert other_ground_F.max() < moved_F.min() - 0.05
    assert reference_likeness(blurred(walk()), walk()[:1]).max() < moved_F.min()


def test_likeness_equals_its_formula_by_loops() -> None:
    video_FHWC, reference_1HWC = torch.rand(2, 7, 9, 3), torch.rand(1, 7, 9, 3)
    directions_KCPP = torch.randn(64, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def project(picture_HWC: Tensor, direction_CPP: Tensor) -> list[float]:
        patches = [picture_HWC[y : y + 5, x : x + 5] for y in range(3) for x in range(5)]
        return sorted((patch.permute(2, 0, 1) * direction_CPP).sum().item() for patch in patches)

    for f in range(2):
        distances = []
        for direction_CPP in directions_KCPP:
            found, wanted = project(video_FHWC[f], direction_CPP), project(reference_1HWC[0], direction_CPP)
            mean = sum(abs(a - b) for a, b in zip(found, wanted, strict=True)) / len(found)
            distances.append(mean / torch.tensor(wanted).std().item())
        likeness = 1 / (1 + sum(distances) / 64)
        assert reference_likeness(video_FHWC, reference_1HWC)[f].item() == pytest.approx(likeness, rel=1e-4)


def test_likeness_is_the_same_at_four_times_the_size() -> None:
    large_FHWC = torch.rand(2, 32, 32, 3).repeat_interleave(16, 1).repeat_interleave(16, 2)
    small_FHWC = large_FHWC[:, ::4, ::4]
    torch.testing.assert_close(
        reference_likeness(large_FHWC, large_FHWC[:1]), reference_likeness(small_FHWC, small_FHWC[:1])
    )


def test_a_jump_after_frame_0_shows_in_the_transition() -> None:
    smooth, video_FHWC = first_frame_transition(walk()), walk()
    video_FHWC[1:] = video_FHWC[1:] * 0.8
    jump = first_frame_transition(video_FHWC)
    assert smooth.ratio == pytest.approx(1.0, abs=0.1)
    assert smooth.difference == pytest.approx(0.0, abs=0.002)
    assert jump.ratio > 2
    assert jump.difference > 0.02


def test_transition_without_any_change_is_1_and_with_only_the_first_is_infinite() -> None:
    assert (first_frame_transition(still()).ratio, first_frame_transition(still()).difference) == (1.0, 0.0)
    frozen_FHWC = still().clone()
    frozen_FHWC[0] *= 0.5
    assert first_frame_transition(frozen_FHWC).ratio == math.inf


def test_consistency_is_best_for_a_still_picture_and_worst_for_shuffled_frames() -> None:
    assert temporal_consistency(still()) == pytest.approx(1.0, abs=1e-6)
    assert 1.0 > temporal_consistency(walk()) > temporal_consistency(shuffled()) + 0.02


def test_sharpness_is_1_when_things_move_below_when_blurred_and_above_with_noise() -> None:
    reference_1HWC = walk()[:1]
    torch.testing.assert_close(relative_sharpness(walk(), reference_1HWC), torch.ones(F), atol=0.05, rtol=0)
    assert relative_sharpness(blurred(walk()), reference_1HWC).max() < 0.7
    noisy_FHWC = (walk() + 0.1 * torch.randn(F, H, W, 3)).clamp(0, 1)
    assert relative_sharpness(noisy_FHWC, reference_1HWC).min() > 1.1


def test_flat_pictures_stay_finite() -> None:
    flat_FHWC = torch.full((F, H, W, 3), 0.5)
    for measure in (reference_likeness, relative_sharpness):
        assert measure(flat_FHWC, flat_FHWC[:1]).isfinite().all()


def test_input_is_not_written_to() -> None:
    video_FHWC = walk()
    reference_likeness(video_FHWC, video_FHWC[:1])
    relative_sharpness(video_FHWC, video_FHWC[:1])
    assert torch.equal(video_FHWC, walk())


def test_values_that_are_no_video_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(frames, height, width, 3\) .* but it is \(6, 3, 40, 56\)"):
        temporal_consistency(walk().permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="of uint8"):
        temporal_consistency((walk() * 255).byte())
    with pytest.raises(ValueError, match="needs 3 frames or more; the video has 2"):
        first_frame_transition(walk()[:2])
    with pytest.raises(ValueError, match="trim and resize one"):
        psnr(walk(), walk()[:2])
    with pytest.raises(ValueError, match="give one picture of the video's size"):
        reference_likeness(walk(), walk()[:2])
    with pytest.raises(ValueError, match="windows of 11 x 11 pixels, but the frames are 8 x 40"):
        ssim(walk()[:, :, :8], walk()[:, :, :8])

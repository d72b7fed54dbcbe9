import math

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.evaluation.distances import frechet_distance, jackknife_error, kernel_distance


def with_moments(mean_C: Tensor, factor_CC: Tensor, count: int) -> Tensor:
    """Features whose mean is exactly this, and whose covariance is factor factor^T."""
    noise_NC = torch.randn(count, len(mean_C), dtype=torch.float64)
    noise_NC = noise_NC - noise_NC.mean(dim=0)
    white_NC = torch.linalg.qr(noise_NC).Q * math.sqrt(count)
    return white_NC @ factor_CC.T + mean_C


def symmetric_root(matrix_CC: Tensor) -> Tensor:
    values_C, vectors_CC = torch.linalg.eigh(matrix_CC)
    return vectors_CC @ torch.diag(values_C.clamp(min=0).sqrt()) @ vectors_CC.T


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    mean_C, other_C = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    spread_C, other_spread_C = torch.tensor([1.0, 3.0, 0.2]).double(), torch.tensor([2.0, 0.5, 0.2]).double()
    one_NC = with_moments(mean_C, torch.diag(spread_C), 11)
    other_MC = with_moments(other_C, torch.diag(other_spread_C), 17)
    wanted = (mean_C - other_C).square().sum() + (spread_C - other_spread_C).square().sum()
    assert frechet_distance(one_NC, other_MC) == pytest.approx(wanted.item(), rel=1e-10)


@pytest.mark.parametrize(("count", "other", "channels"), [(40, 50, 6), (7, 9, 30)])
def test_frechet_distance_equals_the_root_of_a_matrix(count: int, other: int, channels: int) -> None:
    """tr (A B)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), also with fewer videos than features."""
    one_NC = torch.randn(count, channels, dtype=torch.float64)
    other_MC = torch.randn(other, channels, dtype=torch.float64) * 2 + 0.3
    a_CC, b_CC = (torch.cov(features.T, correction=0) for features in (one_NC, other_MC))
    root_CC = symmetric_root(symmetric_root(a_CC) @ b_CC @ symmetric_root(a_CC))
    mean = (one_NC.mean(dim=0) - other_MC.mean(dim=0)).square().sum()
    wanted = (mean + (a_CC + b_CC - 2 * root_CC).trace()).item()
    assert frechet_distance(one_NC.float(), other_MC.float()) == pytest.approx(wanted, rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_0_and_grows_with_what_differs() -> None:
    features_NC = torch.randn(12, 40)
    near, far = (frechet_distance(features_NC, features_NC + shift) for shift in (0.1, 0.5))
    assert frechet_distance(features_NC, features_NC) == pytest.approx(0.0, abs=1e-9)
    assert 0 < near < far
    assert frechet_distance(features_NC, 2 * features_NC) > 1


def test_of_one_distribution_frechet_distance_falls_with_the_number_and_kernel_distance_is_0() -> None:
    draws = [[torch.randn(2, count, 64) for _ in range(20)] for count in (16, 100)]
    frechet = [sum(frechet_distance(*pair) for pair in pairs) / 20 for pairs in draws]
    kernel = [sum(kernel_distance(*pair) for pair in pairs) / 20 for pairs in draws]
    assert frechet[0] > 2 * frechet[1] > 1
    assert max(map(abs, kernel)) < 0.05


def test_kernel_distance_equals_its_formula_by_loops() -> None:
    one_NC, other_MC = torch.randn(4, 5).double(), torch.randn(6, 5).double() + 0.5

    def kernel(a: Tensor, b: Tensor) -> float:
        return ((a @ b).item() / 5 + 1) ** 3

    own = [kernel(a, b) for i, a in enumerate(one_NC) for j, b in enumerate(one_NC) if i != j]
    true = [kernel(a, b) for i, a in enumerate(other_MC) for j, b in enumerate(other_MC) if i != j]
    between = [kernel(a, b) for a in one_NC for b in other_MC]
    wanted = sum(own) / 12 + sum(true) / 30 - 2 * sum(between) / 24
    assert kernel_distance(one_NC, other_MC) == pytest.approx(wanted, rel=1e-9)


def test_jackknife_error_of_a_difference_of_means_is_its_standard_error() -> None:
    one_NC, other_NC = torch.randn(12, 1).double(), torch.randn(12, 1).double()
    differences_N = (one_NC - other_NC).squeeze(1)
    wanted = (differences_N.std() / math.sqrt(12)).item()
    found = jackknife_error(lambda a, b: (a.mean() - b.mean()).item(), one_NC, other_NC)
    assert found == pytest.approx(wanted, rel=1e-6)
    assert math.isnan(jackknife_error(frechet_distance, one_NC[:2], other_NC[:2]))


def test_sets_without_a_distance_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs the features of 2 videos or more, .* \(1, 4\)"):
        frechet_distance(torch.randn(1, 4), torch.randn(3, 4))
    with pytest.raises(ValueError, match="have 4 and 3 videos: take equal numbers"):
        jackknife_error(frechet_distance, torch.randn(4, 2), torch.randn(3, 2))

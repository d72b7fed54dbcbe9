"""Distances of two sets of videos, by a network's features of each; and how sure they are."""

from collections.abc import Callable

import torch
from torch import Tensor

_GROUPS = 20


def frechet_distance(features_NC: Tensor, true_MC: Tensor) -> float:
    """|mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)), with covariances A and B; at least 0, lower is nearer.

    Heusel et al. 2017 (arXiv:1706.08500), Eq. 6. The trace of the root is the sum of the singular values of
    the centred features' product a b^T: exact also with fewer videos than features, without the root of a
    matrix. Covariances are divided by the number, as CD-FVD (arXiv:2404.12391) does, and not by one less. It
    falls with the number of videos even for one distribution: compare equal numbers alone.
    """
    (own_NC, own_mean_C), (other_MC, other_mean_C) = _centred(features_NC), _centred(true_MC)
    root = torch.linalg.svdvals(own_NC @ other_MC.T).sum()
    traces = own_NC.square().sum() + other_MC.square().sum() - 2 * root
    means = (own_mean_C - other_mean_C).square().sum()
    return max(0.0, float(means + traces))


def kernel_distance(features_NC: Tensor, true_MC: Tensor) -> float:
    """Squared maximum mean discrepancy under the kernel (a.b / C + 1)^3, without bias; 0 on average if alike.

    KID, Binkowski et al. 2018 (arXiv:1801.01401), on all videos at once. It may be a little below 0.
    """
    own_NC, other_MC = _checked(features_NC), _checked(true_MC)
    own, other = _mean_without_itself(own_NC), _mean_without_itself(other_MC)
    return (own + other - 2 * _kernel(own_NC, other_MC).mean()).item()


def jackknife_error(
    distance: Callable[[Tensor, Tensor], float], features_NC: Tensor, true_NC: Tensor
) -> float:
    """Standard error of a distance of two sets of equal number, by leaving out a part of both at a time.

    The delete-a-group jackknife, with up to 20 groups. NaN where fewer than 3 videos leave no part out.
    """
    count = len(features_NC)
    if count != len(true_NC):
        raise ValueError(f"The sets have {count} and {len(true_NC)} videos: take equal numbers.")
    if count < 3:
        return float("nan")
    groups = min(count, _GROUPS)
    group_N = torch.arange(count) % groups
    values_G = torch.tensor(
        [distance(features_NC[group_N != g], true_NC[group_N != g]) for g in range(groups)],
        dtype=torch.float64,
    )
    return ((groups - 1) * values_G.var(correction=0)).sqrt().item()


def _checked(features_NC: Tensor) -> Tensor:
    if features_NC.ndim != 2 or len(features_NC) < 2:
        raise ValueError(
            "A distance of sets needs the features of 2 videos or more, but they have the shape "
            f"{tuple(features_NC.shape)}."
        )
    return features_NC.double()


def _centred(features_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Deviations from the mean, divided by the root of the number; and the mean."""
    checked_NC = _checked(features_NC)
    mean_C = checked_NC.mean(dim=0)
    return (checked_NC - mean_C) / len(checked_NC) ** 0.5, mean_C


def _kernel(one_NC: Tensor, other_MC: Tensor) -> Tensor:
    return (one_NC @ other_MC.T / one_NC.shape[1] + 1) ** 3


def _mean_without_itself(features_NC: Tensor) -> Tensor:
    kernel_NN = _kernel(features_NC, features_NC)
    count = len(kernel_NN)
    return (kernel_NN.sum() - kernel_NN.trace()) / (count * (count - 1))

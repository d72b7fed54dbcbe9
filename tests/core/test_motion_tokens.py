"""Action tokens in attention, against softmax over the whole sequence with a dense mask."""

import math

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn

from flash_pack.flash_modules.flexiact.motion_tokens import Prefix, attend_with_prefix, layer_prefix, sdpa

B, TEXT, VIDEO, M, HEADS, D = 2, 3, 11, 5, 4, 16


def _heads(num_tokens: int, batch: int = B) -> Tensor:
    return torch.randn(batch, num_tokens, HEADS, D)


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    return _heads(TEXT + VIDEO), _heads(TEXT + VIDEO), _heads(TEXT + VIDEO)


@pytest.fixture
def prefix() -> Prefix:
    return Prefix(k=_heads(M, batch=1), v=_heads(M, batch=1))


def _slow(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, biases_M2: Tensor) -> Tensor:
    """One query after the other, in float64."""
    out = torch.empty(q.shape, dtype=torch.float64)
    for b in range(len(q)):
        for n in range(q.shape[1]):
            for head in range(HEADS):
                keys = torch.cat([k[b, :, head], prefix.k[0, :, head]]).double()
                values = torch.cat([v[b, :, head], prefix.v[0, :, head]]).double()
                scores = keys @ q[b, n, head].double() / math.sqrt(D)
                scores[-M:] += biases_M2[:, 0] + (biases_M2[:, 1] if n >= TEXT else 0)
                out[b, n, head] = scores.softmax(0) @ values
    return out


@pytest.mark.parametrize("columns", [(), (0,), (1,), (0, 1)])
def test_biases_equal_a_mask(
    qkv: tuple[Tensor, Tensor, Tensor], prefix: Prefix, columns: tuple[int, ...]
) -> None:
    biases_M2 = torch.zeros(M, 2)
    for column in columns:
        biases_M2[:, column] = torch.randn(M)
    found = attend_with_prefix(*qkv, prefix, biases_M2 if columns else None, TEXT, sdpa)
    torch.testing.assert_close(found.double(), _slow(*qkv, prefix, biases_M2), atol=1e-6, rtol=1e-5)


def test_zero_biases_are_none(qkv: tuple[Tensor, Tensor, Tensor], prefix: Prefix) -> None:
    plain = attend_with_prefix(*qkv, prefix, None, TEXT, sdpa)
    torch.testing.assert_close(attend_with_prefix(*qkv, prefix, torch.zeros(M, 2), TEXT, sdpa), plain)


def test_a_very_low_bias_is_no_prefix(qkv: tuple[Tensor, Tensor, Tensor], prefix: Prefix) -> None:
    biases_M2 = torch.tensor([[math.log(1e-20), 0.0]]).expand(M, 2)
    found = attend_with_prefix(*qkv, prefix, biases_M2, TEXT, sdpa)
    torch.testing.assert_close(found, sdpa(*qkv, D**-0.5), atol=1e-6, rtol=1e-5)


def test_given_tensors_stay_as_they_are(qkv: tuple[Tensor, Tensor, Tensor], prefix: Prefix) -> None:
    kept = [tensor.clone() for tensor in (*qkv, prefix.k, prefix.v)]
    attend_with_prefix(*qkv, prefix, torch.ones(M, 2), TEXT, sdpa)
    for before, after in zip(kept, (*qkv, prefix.k, prefix.v), strict=True):
        assert torch.equal(before, after)


def test_the_kernel_gets_the_scale_of_the_real_heads(
    qkv: tuple[Tensor, Tensor, Tensor], prefix: Prefix
) -> None:
    seen = []

    def kernel(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        seen.append((q.shape, k.shape, v.shape, scale))
        return sdpa(q, k, v, scale)

    attend_with_prefix(*qkv, prefix, None, TEXT, kernel)
    attend_with_prefix(*qkv, prefix, torch.ones(M, 2), TEXT, kernel)
    for (q_shape, k_shape, v_shape, scale), wide in zip(seen, (D, D + 8), strict=True):
        assert q_shape == (B, TEXT + VIDEO, HEADS, wide)
        assert k_shape == v_shape == (B, TEXT + VIDEO + M, HEADS, wide)
        assert scale == D**-0.5


def test_a_prefix_is_projected_split_into_heads_and_normed() -> None:
    to_k, to_v = nn.Linear(HEADS * D, HEADS * D), nn.Linear(HEADS * D, HEADS * D)
    norm_k = nn.LayerNorm(D)
    nn.init.normal_(norm_k.weight)
    tokens_MC = torch.randn(M, HEADS * D)
    prefix = layer_prefix(tokens_MC, to_k, to_v, norm_k, HEADS)
    k = norm_k(rearrange(to_k(tokens_MC), "m (heads d) -> m heads d", heads=HEADS))
    torch.testing.assert_close(prefix.k[0], k)
    torch.testing.assert_close(rearrange(prefix.v[0], "m heads d -> m (heads d)"), to_v(tokens_MC))


def test_zero_tokens_are_not_nothing(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    width = HEADS * D
    prefix = layer_prefix(
        torch.zeros(M, width), nn.Linear(width, width), nn.Linear(width, width), nn.LayerNorm(D), HEADS
    )
    found = attend_with_prefix(*qkv, prefix, None, TEXT, sdpa)
    assert (found - sdpa(*qkv, D**-0.5)).abs().max() > 0.01

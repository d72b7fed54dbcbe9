import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules import attention
from flash_pack.flash_modules.attention import attend

B, F, N, M, HEADS, D = 2, 3, 5, 7, 4, 6
C = HEADS * D


def slow_attend(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor) -> Tensor:
    out_BNC = torch.zeros_like(q_BNC)
    for b in range(q_BNC.shape[0]):
        for head in range(HEADS):
            part = slice(head * D, (head + 1) * D)
            for n in range(q_BNC.shape[1]):
                scores = [float(q_BNC[b, n, part] @ k[part]) / D**0.5 for k in k_BMC[b]]
                weights = torch.tensor(scores, dtype=torch.float64).exp()
                out_BNC[b, n, part] = (weights[:, None] * v_BMC[b, :, part]).sum(0) / weights.sum()
    return out_BNC


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    q_BNC = torch.randn(B, N, C, dtype=torch.float64)
    k_BMC, v_BMC = torch.randn(2, B, M, C, dtype=torch.float64)
    return q_BNC, k_BMC, v_BMC


def test_attend_equals_a_loop(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    torch.testing.assert_close(attend(*qkv, HEADS), slow_attend(*qkv), rtol=1e-12, atol=1e-12)


def test_order_of_keys_does_not_matter(qkv: tuple[Tensor, Tensor, Tensor]) -> None:
    q_BNC, k_BMC, v_BMC = qkv
    order = torch.randperm(M)
    swapped_BNC = attend(q_BNC, k_BMC[:, order], v_BMC[:, order], HEADS)
    torch.testing.assert_close(swapped_BNC, attend(*qkv, HEADS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("max_rows", [1, HEADS, 3 * HEADS, 7 * HEADS - 1])
def test_large_batches_are_cut_without_a_change(monkeypatch: pytest.MonkeyPatch, max_rows: int) -> None:
    calls = []
    kernel = attention.scaled_dot_product_attention

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape[0] * q.shape[1])
        return kernel(q, k, v)

    q_YFC, k_YFC, v_YFC = torch.randn(3, 7, F, C, dtype=torch.float64)
    whole_YFC = attend(q_YFC, k_YFC, v_YFC, HEADS)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", counted)
    monkeypatch.setattr(attention, "_MAX_ROWS", max_rows)
    torch.testing.assert_close(attend(q_YFC, k_YFC, v_YFC, HEADS), whole_YFC, rtol=1e-12, atol=1e-12)
    assert len(calls) > 1
    assert max(calls) <= max(max_rows, HEADS)
    assert sum(calls) == 7 * HEADS

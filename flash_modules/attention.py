"""Attention kernel of the core."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""``attend(q_BNC, k_BMC, v_BMC, num_heads) -> out_BNC``, scaled by (channels of a head)**-0.5."""

_MAX_ROWS = 2**15
"""Rows (videos x pixels x heads) of one kernel call: on CUDA some kernels fail from 65,536 on."""


def attend(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, num_heads: int) -> Tensor:
    """Softmax attention over heads that lie side by side in the channels."""
    rows = max(1, _MAX_ROWS // num_heads)
    parts = [
        _attend(*(rearrange(x, "b n (heads d) -> b heads n d", heads=num_heads) for x in part))
        for part in zip(*(torch.split(x, rows) for x in (q_BNC, k_BMC, v_BMC)), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return rearrange(scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")

"""Attention kernel of the core, and cross-frame attention."""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
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


def with_first_frame(tokens_XNC: Tensor, num_frames: int) -> Tensor:
    """Append the tokens of each video's first frame to those of every frame: (B*F, 2N, C).

    As keys and values this turns self-attention into FLASH's cross-frame attention, [current frame; first
    frame] (arXiv:2503.00276, A3.2). For the first frame itself it equals self-attention.
    """
    first_BNC = rearrange(tokens_XNC, "(b f) n c -> b f n c", f=num_frames)[:, 0]
    return torch.cat([tokens_XNC, repeat(first_BNC, "b n c -> (b f) n c", f=num_frames)], dim=1)

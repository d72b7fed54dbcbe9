"""Attention kernel of the core, and cross-frame attention."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange, repeat
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""``attend(q_BNC, k_BMC, v_BMC, num_heads) -> out_BNC``, scaled by (channels of a head)**-0.5."""

_MAX_CUDA_ROWS = 2**15
"""CUDA attention kernels fail near 65,536 rows; temporal attention has one row per pixel."""


def attend(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, num_heads: int) -> Tensor:
    """Softmax attention over heads that lie side by side in the channels."""
    rows = max(1, _MAX_CUDA_ROWS // num_heads) if q_BNC.is_cuda else q_BNC.shape[0]
    if q_BNC.shape[0] > rows:
        parts = zip(q_BNC.split(rows), k_BMC.split(rows), v_BMC.split(rows), strict=True)
        return torch.cat([attend(q, k, v, num_heads) for q, k, v in parts])
    q, k, v = (rearrange(x, "b n (heads d) -> b heads n d", heads=num_heads) for x in (q_BNC, k_BMC, v_BMC))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b heads n d -> b n (heads d)")


def with_first_frame(tokens_XNC: Tensor, num_frames: int) -> Tensor:
    """Append the tokens of each video's first frame to those of every frame: (B*F, 2N, C).

    As keys and values this turns self-attention into FLASH's cross-frame attention, [current frame; first
    frame] (arXiv:2503.00276, A3.2). For the first frame itself it equals self-attention.
    """
    first_BNC = rearrange(tokens_XNC, "(b f) n c -> b f n c", f=num_frames)[:, 0]
    return torch.cat([tokens_XNC, repeat(first_BNC, "b n c -> (b f) n c", f=num_frames)], dim=1)

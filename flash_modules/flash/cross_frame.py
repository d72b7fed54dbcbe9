"""Cross-frame attention: what each frame reads of the first one."""

import torch
from einops import rearrange, repeat
from torch import Tensor


def with_first_frame(tokens_XNC: Tensor, num_frames: int) -> Tensor:
    """Append the tokens of each video's first frame to those of every frame: (B*F, 2N, C).

    As keys and values this turns self-attention into FLASH's cross-frame attention, [current frame; first
    frame] (arXiv:2503.00276, A3.2). For the first frame itself it equals self-attention.
    """
    first_BNC = rearrange(tokens_XNC, "(b f) n c -> b f n c", f=num_frames)[:, 0]
    return torch.cat([tokens_XNC, repeat(first_BNC, "b n c -> (b f) n c", f=num_frames)], dim=1)

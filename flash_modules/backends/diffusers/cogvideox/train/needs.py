"""What encoding a clip takes."""

import torch
from diffusers import AutoencoderKLCogVideoX

from .....training.cost import counting
from ..memory import bytes_of
from .encode import encode_moments


def encoding_bytes(vae: AutoencoderKLCogVideoX, video: tuple[int, int, int]) -> int:
    """The VAE's weights, and the most that it holds while it encodes a video of so many (F, H, W)."""
    frames, height, width = video
    with counting() as counter:
        encode_moments(vae, torch.empty(frames, 3, height, width, dtype=vae.dtype))
    return bytes_of(vae) + counter.cost.peak_bytes

"""Videos into moments of latents."""

import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from torch import Tensor

from .....flexiact.training.encoded import Moments


@torch.inference_mode()
def encode_moments(vae: AutoencoderKLCogVideoX, video_FCHW: Tensor) -> Moments:
    """Mean and deviation (F, C, h, w) of a video's scaled latents; pixels are in [0, 1].

    The VAE takes 49 frames in chunks of 9, 8, 8, ..., each with what it keeps of the one before.
    """
    vae.disable_tiling()
    pixels_1CFHW = rearrange(video_FCHW, "f c h w -> 1 c f h w").to(vae.device, vae.dtype) * 2 - 1
    posterior = vae.encode(pixels_1CFHW).latent_dist
    mean, deviation = (
        rearrange(x.float(), "1 c f h w -> f c h w") * vae.config.scaling_factor
        for x in (posterior.mean, posterior.std)
    )
    return mean, deviation

"""Prompts and pictures into what the U-Net reads, and latents back into pictures."""

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor

from .base import Base


@torch.inference_mode()
def encode_prompt(base: Base, prompt: str) -> Tensor:
    """Text embeddings (1, M, C): CLIP's last layer after its norm, as CLIP Text Encode of ComfyUI gives them.

    Words are taken as they are: no weights like (word:1.2). Raises ValueError if the prompt is too long.
    """
    if not _is_text(prompt):
        raise ValueError(
            f"The prompt {prompt!r} is no text: it holds bytes of a name that is not UTF-8. Write another."
        )
    length = base.text_encoder.config.max_position_embeddings
    tokens = base.tokenizer(prompt).input_ids
    if len(tokens) > length:
        raise ValueError(
            f"The prompt has {len(tokens) - 2} tokens, and Stable Diffusion 1.5 reads {length - 2}: shorten "
            f'it. It begins with "{prompt[:40]}".'
        )
    end = tokens[-1]
    padded_1M = torch.tensor([tokens + [end] * (length - len(tokens))], device=base.text_encoder.device)
    return base.text_encoder(padded_1M).last_hidden_state


def _is_text(prompt: str) -> bool:
    """Not so for names of files that are not UTF-8: Python keeps their bytes as halves of letters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in prompt)


@torch.inference_mode()
def encode_picture(vae: AutoencoderKL, image_1HWC: Tensor) -> Tensor:
    """Scaled latent (1, C, h, w) of a picture in [0, 1]: the mean of the VAE's posterior."""
    pixels_1CHW = rearrange(image_1HWC, "b h w c -> b c h w").to(vae.device, vae.dtype) * 2 - 1
    return vae.encode(pixels_1CHW).latent_dist.mean * vae.config.scaling_factor


@torch.inference_mode()
def decode_frames(vae: AutoencoderKL, latents_FCHW: Tensor) -> Iterator[Tensor]:
    """Pictures (H, W, 3) in [0, 1] of scaled latents, one after the other, so that memory stays flat."""
    for latent_1CHW in latents_FCHW.to(vae.device, vae.dtype).split(1):
        yield to_picture(vae.decode(latent_1CHW / vae.config.scaling_factor).sample)


def to_picture(pixels_1CHW: Tensor) -> Tensor:
    """A picture (H, W, 3) in [0, 1] of what a VAE gives."""
    return rearrange((pixels_1CHW + 1) / 2, "1 c h w -> h w c").clamp(0, 1)

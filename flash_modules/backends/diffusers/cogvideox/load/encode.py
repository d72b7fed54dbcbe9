"""Prompts and pictures into what the transformer reads, and latents back into pictures."""

from collections.abc import Iterable, Iterator

import torch
from diffusers import AutoencoderKLCogVideoX
from einops import rearrange
from tokenizers import Tokenizer
from torch import Tensor
from transformers import T5EncoderModel

from .....files.json_file import read_json
from .....flexiact.action_file import BASE
from .base import BaseFiles
from .tokenizer import read_tokenizer

_PAD = 0
_WORDS = 32128
"""That T5 knows, where its settings leave it out."""


def prompt_tokens(tokenizer: Tokenizer, prompt: str, max_text: int) -> list[int]:
    """The numbers of a prompt's tokens. Raises ValueError if it is too long, which the original cuts off.

    Words are taken as they are: no weights like (word:1.2).
    """
    tokens: list[int] = tokenizer.encode(prompt).ids
    if len(tokens) > max_text:
        raise ValueError(
            f"The prompt has {len(tokens)} tokens, and {BASE} reads {max_text}: shorten it. It begins with "
            f'"{prompt[:40]}".'
        )
    return tokens


def check_prompts(files: BaseFiles, prompts: Iterable[str]) -> None:
    """Raise ValueError if one is too long; no weights are read."""
    words = read_json(files.path / "text_encoder" / "config.json").get("vocab_size", _WORDS)
    tokenizer = read_tokenizer(files.tokenizer, int(words))
    for prompt in prompts:
        prompt_tokens(tokenizer, prompt, files.max_text)


@torch.inference_mode()
def encode_prompt(encoder: T5EncoderModel, tokenizer: Tokenizer, prompt: str, max_text: int) -> Tensor:
    """Text embeddings (1, M, C) of a prompt, M = `max_text`: padded, and the padding is not masked.

    Raises ValueError if the prompt is too long.
    """
    tokens = prompt_tokens(tokenizer, prompt, max_text)
    padded_1M = torch.tensor([tokens + [_PAD] * (max_text - len(tokens))], device=encoder.device)
    return encoder(padded_1M).last_hidden_state


@torch.inference_mode()
def encode_picture(vae: AutoencoderKLCogVideoX, image_1HWC: Tensor) -> Tensor:
    """Scaled latent (1, C, h, w) of a picture in [0, 1]: the mean of the VAE's posterior.

    Deviation: the original draws from the posterior, and encodes tile by tile; the mean of the whole picture
    is the same for every seed, and has no seams.
    """
    vae.disable_tiling()
    pixels_1CFHW = rearrange(image_1HWC, "1 h w c -> 1 c 1 h w").to(vae.device, vae.dtype) * 2 - 1
    mean_1CFHW = vae.encode(pixels_1CFHW).latent_dist.mean
    return rearrange(mean_1CFHW, "1 c 1 h w -> 1 c h w") * vae.config.scaling_factor


@torch.inference_mode()
def decode_video(vae: AutoencoderKLCogVideoX, latents_FCHW: Tensor) -> Iterator[Tensor]:
    """Pictures (H, W, 3) in [0, 1] of a video's scaled latents; tile by tile, as the original does."""
    vae.enable_tiling()
    latents_1CFHW = rearrange(latents_FCHW, "f c h w -> 1 c f h w").to(vae.device, vae.dtype)
    pixels_1CFHW = vae.decode(latents_1CFHW / vae.config.scaling_factor).sample
    for pixels_CHW in rearrange(pixels_1CFHW, "1 c f h w -> f c h w"):
        yield rearrange((pixels_CHW.float() + 1) / 2, "c h w -> h w c").clamp(0, 1)

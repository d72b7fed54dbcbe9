"""Parts of a base model that were read are tried once, and small, before anybody waits for them."""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .....files.tensor_file import check_numbers
from ...fill import telling


def read_tokenizer(folder: Path, num_words: int) -> CLIPTokenizer:
    """A tokenizer of a text encoder that knows so many. Raises ValueError if it is damaged, or of another."""
    what = (
        f"The tokenizer in {folder} cannot be read: put back its vocab.json and merges.txt, or give another"
    )
    with telling(what):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        if len(tokenizer) <= num_words:
            _try_words(tokenizer, num_words)
    if len(tokenizer) > num_words:
        raise ValueError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens and the base model {num_words}: "
            "it belongs to another model."
        )
    return tokenizer


def _try_words(tokenizer: CLIPTokenizer, num_words: int) -> None:
    vocabulary = tokenizer.get_vocab()
    if not vocabulary or not all(type(n) is int and 0 <= n < num_words for n in vocabulary.values()):
        raise ValueError("its words have odd numbers")
    tokens = tokenizer("a person").input_ids
    if len(tokens) < 3 or tokens[0] != tokenizer.bos_token_id or tokens[-1] != tokenizer.eos_token_id:
        raise ValueError("a prompt does not begin and end as it should")
    if not all(type(token) is int and 0 <= token < num_words for token in tokens):
        raise ValueError("a prompt has odd numbers")


@torch.inference_mode()
def try_vae(vae: AutoencoderKL, path: Path) -> None:
    """Try it on the smallest picture. Raises ValueError if that fails, or if weights are not finite."""
    check_numbers(dict(vae.named_parameters()), path.name)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    with telling(f"The VAE in {path} is damaged: download it again"):
        scale = vae.config.scaling_factor
        if not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise ValueError(f"`scaling_factor` is {scale}")
        latents = vae.encode(torch.zeros(1, 3, 2 * factor, 2 * factor)).latent_dist.mean
        _check(latents, (1, 4, 2, 2))
        _check(vae.decode(latents / scale).sample, (1, 3, 2 * factor, 2 * factor))


@torch.inference_mode()
def try_unet(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, path: Path) -> None:
    """Predict the smallest latent's noise. Raises ValueError if that fails, or if weights are not finite."""
    check_numbers(dict(text_encoder.named_parameters()), path.name)
    check_numbers(dict(unet.named_parameters()), path.name)
    side = 2 ** len(unet.config.block_out_channels)
    with telling(f"The U-Net or text encoder in {path} is damaged: download it again"):
        length = text_encoder.config.max_position_embeddings
        text_embeds = text_encoder(torch.zeros(1, length, dtype=torch.long)).last_hidden_state
        _check(text_embeds, (1, length, unet.config.cross_attention_dim))
        _check(unet(torch.zeros(1, 4, side, side), 1, text_embeds).sample, (1, 4, side, side))


def _check(values: Tensor, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"it gives the shape {tuple(values.shape)} in place of {shape}")

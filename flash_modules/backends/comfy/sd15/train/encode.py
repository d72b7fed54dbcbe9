"""ComfyUI's VAE and text encoder as the command line uses its own: frame by frame, words as they are."""

from collections.abc import Iterator

import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.sd import CLIP, VAE
from comfy.sd1_clip import SD1Tokenizer
from torch import Tensor

from .....files.tensor_file import fingerprint
from .....flash.decoder_file import SIGNATURE
from ...learning.encoders import run_vae
from ...learning.own_weights import baked

_CLIP_SIGNATURE = ".layers.0.self_attn."
"""Part of the names of the weights that a text encoder is known by."""


def check_vae(vae: VAE) -> None:
    """Raise ValueError unless it is a VAE of Stable Diffusion 1.5's kind."""
    if not isinstance(vae.first_stage_model, AutoencoderKL) or vae.latent_channels != 4:
        raise ValueError(
            f"This VAE is {type(vae.first_stage_model).__name__} with {vae.latent_channels} channels, and an "
            "action is learned with the VAE of Stable Diffusion 1.5: connect the checkpoint's own."
        )


def check_clip(clip: CLIP) -> None:
    """Raise ValueError unless it is the text encoder of Stable Diffusion 1.5."""
    if getattr(clip.tokenizer, "clip_name", None) != "l" or not isinstance(clip.tokenizer, SD1Tokenizer):
        raise ValueError(
            f"This CLIP reads text with {type(clip.tokenizer).__name__}, and an action is learned with the "
            "text encoder of Stable Diffusion 1.5: connect the checkpoint's own."
        )


@torch.no_grad()
def encoder_fingerprints(vae: VAE, clip: CLIP) -> dict[str, str]:
    """What the VAE and the text encoder, with its LoRAs and clip skip, are known by; neither is loaded."""
    signature = {name: tensor for name, tensor in vae.get_sd().items() if name in SIGNATURE}
    patches = clip.patcher.get_key_patches()
    layers = {key: baked(key, *values) for key, values in patches.items() if _CLIP_SIGNATURE in key}
    skip = {"layer": torch.tensor([float(clip.layer_idx or 0)])}
    return {"VAE": fingerprint(signature), "text encoder": fingerprint({**layers, **skip})}


def encode_frames(vae: VAE, video_FCHW: Tensor) -> Tensor:
    """Unscaled latents (F, C, h, w), fp32 on the CPU, of pixels in [0, 1].

    Frame by frame, and without ComfyUI's fallback: where memory is short it would encode tiles, which are
    other latents, and say so only in its log.
    """
    return torch.cat([run_vae(vae, vae.memory_used_encode, frame, _encode) for frame in video_FCHW.split(1)])


def decode_frames(vae: VAE, latents_FCHW: Tensor) -> Iterator[Tensor]:
    """Pictures (H, W, 3) in [0, 1], on the CPU, of unscaled latents, one after the other."""
    for latent_1CHW in latents_FCHW.split(1):
        yield run_vae(vae, vae.memory_used_decode, latent_1CHW, _decode)[0].movedim(0, -1)


def _encode(vae: VAE, frame_1CHW: Tensor) -> Tensor:
    pixels_1CHW = vae.process_input(frame_1CHW.float()).to(vae.device, vae.vae_dtype)
    return vae.first_stage_model.encode(pixels_1CHW)


def _decode(vae: VAE, latent_1CHW: Tensor) -> Tensor:
    return vae.process_output(vae.first_stage_model.decode(latent_1CHW.to(vae.device, vae.vae_dtype)).float())


def embed_prompt(clip: CLIP, prompt: str) -> Tensor:
    """Text embeddings (1, M, C), fp32 on the CPU, of the words as they are: no weights like (word:1.2).

    Raises ValueError if the prompt is too long; ComfyUI would put a second 75 tokens behind the first.
    """
    tokenizer = getattr(clip.tokenizer, clip.tokenizer.clip)
    tokens, length = tokenizer.tokenizer(prompt)["input_ids"], tokenizer.max_length
    if len(tokens) > length:
        raise ValueError(
            f"The prompt has {len(tokens) - 2} tokens, and Stable Diffusion 1.5 reads {length - 2}: shorten "
            f'it. It begins with "{prompt[:40]}".'
        )
    padded = [(token, 1.0) for token in tokens + [tokens[-1]] * (length - len(tokens))]
    with torch.inference_mode():
        embeds_1MC = clip.encode_from_tokens({clip.tokenizer.clip_name: [padded]}).to("cpu", torch.float32)
    return embeds_1MC.clone()

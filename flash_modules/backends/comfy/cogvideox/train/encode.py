"""ComfyUI's VAE and T5 as the command line uses its own: moments in diffusers' chunks, words as they are."""

from collections.abc import Iterator

import torch
from comfy.sd import CLIP, VAE
from comfy.text_encoders.cogvideo import CogVideoXTokenizer
from einops import rearrange
from torch import Tensor

from .....files.tensor_file import fingerprint
from .....flexiact.action_file import BASE
from .....flexiact.training.encoded import Moments
from ...learning.encoders import run_vae

_CHUNK = 8
"""Frames that the VAE takes at a time; the first chunk has the odd one, too."""
_PAD = 0
_VAE_SIGNATURE = ("encoder.conv_in.conv.weight", "encoder.conv_out.conv.weight")
_TEXT_SIGNATURE = "layer_norm.weight"
"""Ends the names of the weights that are known by: those that no file has quantised."""


def check_clip(clip: CLIP) -> None:
    """Raise ValueError unless it is T5-XXL as CogVideoX reads it."""
    tokenizer = getattr(clip, "tokenizer", None)
    if not isinstance(tokenizer, CogVideoXTokenizer):
        raise ValueError(
            f"This CLIP reads text with {type(tokenizer).__name__}, and CogVideoX needs T5-XXL: load "
            "t5xxl_fp16.safetensors with Load CLIP and the type cogvideox."
        )


@torch.no_grad()
def encoder_fingerprints(vae: VAE, clip: CLIP) -> dict[str, str]:
    """What the VAE and the text encoder are known by; neither is loaded."""
    weights, text = vae.get_sd(), clip.patcher.model.state_dict()
    return {
        "VAE": fingerprint({name: weights[name] for name in _VAE_SIGNATURE}),
        "text encoder": fingerprint({n: weight for n, weight in text.items() if n.endswith(_TEXT_SIGNATURE)}),
    }


def check_prompt(clip: CLIP, prompt: str, max_text: int) -> None:
    """Raise ValueError if there is none, or it is too long, which the original cuts off."""
    if not prompt:
        raise ValueError(
            "There is no `prompt`: say what is seen in the clip, who it is and how they move, in two or "
            "three sentences."
        )
    tokens = _tokens(clip, prompt)
    if len(tokens) > max_text:
        raise ValueError(
            f"The prompt has {len(tokens)} tokens, and {BASE} reads {max_text}: shorten it. It begins with "
            f'"{prompt[:40]}".'
        )


def embed_prompt(clip: CLIP, prompt: str, max_text: int) -> Tensor:
    """Text embeddings (1, M, C), M = `max_text`, fp32 on the CPU: padded, and the padding is not masked.

    Words are taken as they are: no weights like (word:1.2).
    """
    tokens = _tokens(clip, prompt)
    padded = [(token, 1.0) for token in [*tokens, *[_PAD] * (max_text - len(tokens))]]
    with torch.inference_mode():
        embeds_1MC = clip.encode_from_tokens({clip.tokenizer.clip_name: [padded]}).to("cpu", torch.float32)
    return embeds_1MC.clone()


def _tokens(clip: CLIP, prompt: str) -> list[int]:
    return getattr(clip.tokenizer, clip.tokenizer.clip).tokenizer(prompt)["input_ids"]


def encode_moments(vae: VAE, scale: float, video_FCHW: Tensor) -> Moments:
    """Mean and deviation (F, C, h, w) of a video's latents, times `scale`; pixels are in [0, 1].

    As diffusers encodes them, chunk by chunk, each with what the VAE keeps of the one before; ComfyUI begins
    49 frames with one alone, which loses that, and gives no deviation. No tiles where memory is short: they
    would be other latents.
    """
    pixels_1CFHW = rearrange(video_FCHW, "f c h w -> 1 c f h w")
    found_1CFHW = run_vae(vae, lambda shape, dtype: _memory(vae, shape, dtype), pixels_1CFHW, _encode)
    mean, log_variance = rearrange(found_1CFHW, "1 (two c) f h w -> two f c h w", two=2)
    return scale * mean, scale * (log_variance.clamp(-30, 20) / 2).exp()


def _memory(vae: VAE, shape: torch.Size, dtype: torch.dtype) -> float:
    """Of the largest chunk."""
    return vae.memory_used_encode((*shape[:2], min(shape[2], _CHUNK + 1), *shape[3:]), dtype)


def _encode(vae: VAE, pixels_1CFHW: Tensor) -> Tensor:
    """Means and logarithms of variances, one after the other on channels."""
    pixels = vae.process_input(pixels_1CFHW.float()).to(vae.device, vae.vae_dtype)
    parts, kept = [], None
    for chunk in pixels.split(list(_chunks(pixels.shape[2])), dim=2):
        found, kept = vae.first_stage_model.encoder(chunk, conv_cache=kept)
        parts.append(found)
    return torch.cat(parts, dim=2)


def _chunks(num_frames: int) -> Iterator[int]:
    whole, odd = divmod(num_frames, _CHUNK)
    yield odd + (_CHUNK if whole else 0)
    yield from [_CHUNK] * (whole - 1)

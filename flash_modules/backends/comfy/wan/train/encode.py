"""ComfyUI's VAE and UMT5 as a training uses them: clips as a whole, words as they are."""

import torch
from comfy.ldm.wan.vae2_2 import WanVAE
from comfy.sd import CLIP, VAE
from comfy.text_encoders.wan import WanT5Tokenizer
from einops import rearrange
from torch import Tensor

from .....files.tensor_file import fingerprint
from ...learning.encoders import run_vae
from ..kinds import BASE

STEP = 4
"""Frames of a clip for one latent, after its first, which has a latent of its own."""
FACTOR = 16
"""Pixels of a picture for one pixel of its latent, in each direction."""
_MAX_TEXT = 512
"""Tokens that the model was trained with; ComfyUI fills up to as many."""
_PAD = 0
_VAE_SIGNATURE = ("encoder.conv1.weight", "conv1.weight")
_TEXT_SIGNATURE = "layer_norm.weight"
"""Ends the names of the weights that are known by: those that no file has quantised."""


def check_vae(vae: VAE) -> None:
    """Raise ValueError unless it is the VAE of Wan2.2 TI2V-5B."""
    if not isinstance(vae.first_stage_model, WanVAE):
        raise ValueError(
            f"This VAE is {type(vae.first_stage_model).__name__} with {vae.latent_channels} channels, and "
            f"{BASE} has one of its own with 48: load wan2.2_vae.safetensors."
        )


def check_clip(clip: CLIP) -> None:
    """Raise ValueError unless it is UMT5-XXL as Wan reads it."""
    tokenizer = getattr(clip, "tokenizer", None)
    if not isinstance(tokenizer, WanT5Tokenizer):
        raise ValueError(
            f"This CLIP reads text with {type(tokenizer).__name__}, and Wan needs UMT5-XXL: load "
            "umt5_xxl_fp8_e4m3fn_scaled.safetensors with Load CLIP and the type wan."
        )


@torch.no_grad()
def encoder_fingerprints(vae: VAE, clip: CLIP) -> dict[str, str]:
    """What the VAE and the text encoder are known by; neither is loaded."""
    weights, text = vae.get_sd(), clip.patcher.model.state_dict()
    return {
        "VAE": fingerprint({name: weights[name] for name in _VAE_SIGNATURE}),
        "text encoder": fingerprint({n: weight for n, weight in text.items() if n.endswith(_TEXT_SIGNATURE)}),
    }


def latent_frames(num_frames: int) -> int:
    """Latents of so many pictures: one of the first, then one of every four; what is left over has none."""
    return (num_frames - 1) // STEP + 1


def embed_prompt(clip: CLIP, prompt: str) -> Tensor:
    """Text embeddings (1, 512, C), fp32 on the CPU; those of the padding are 0.

    Words are taken as they are: no weights like (word:1.2). Raises ValueError if the prompt is too long.
    """
    tokens = getattr(clip.tokenizer, clip.tokenizer.clip).tokenizer(prompt)["input_ids"]
    if len(tokens) > _MAX_TEXT:
        raise ValueError(
            f"The prompt has {len(tokens)} tokens, and {BASE} reads {_MAX_TEXT}: shorten it. It begins with "
            f'"{prompt[:40]}".'
        )
    padded = [(token, 1.0) for token in [*tokens, *[_PAD] * (_MAX_TEXT - len(tokens))]]
    with torch.inference_mode():
        embeds_1MC = clip.encode_from_tokens({clip.tokenizer.clip_name: [padded]}).to("cpu", torch.float32)
    return embeds_1MC.clone()


def encode_video(vae: VAE, video_FCHW: Tensor) -> Tensor:
    """Unscaled latents (F', C, h, w), fp32 on the CPU, of pixels in [0, 1]; the VAE is causal in time.

    Without ComfyUI's fallback: where memory is short it would encode tiles, which are other latents.
    """
    pixels_1CFHW = rearrange(video_FCHW, "f c h w -> 1 c f h w")
    return rearrange(run_vae(vae, vae.memory_used_encode, pixels_1CFHW, _encode), "1 c f h w -> f c h w")


def _encode(vae: VAE, pixels_1CFHW: Tensor) -> Tensor:
    pixels = vae.process_input(pixels_1CFHW.float()).to(vae.device, vae.vae_dtype)
    return vae.first_stage_model.encode(pixels)

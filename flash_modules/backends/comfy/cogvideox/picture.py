"""The picture that a video begins with: cut to the model's size, encoded, and given to the prompts."""

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from comfy.ldm.cogvideo.vae import AutoencoderKLCogVideoX
from comfy.sd import VAE
from PIL import Image
from torch import Tensor

from ....files.video_files import fit_picture
from .run_check import PICTURE

WIDTH, HEIGHT, NUM_FRAMES = 720, 480, 49
"""The only size that CogVideoX-5b-I2V learned."""
_CHANNELS, _SCALE, _FRAMES_PER_LATENT = 16, 8, 4


@dataclass(frozen=True)
class Conditioned:
    """What a sampler needs to animate a picture."""

    positive: Any
    negative: Any
    latent: dict[str, Tensor]
    notes: list[str]
    """What was done to the picture, for a user."""


def condition(positive, negative, vae, image_BHWC: Tensor) -> Conditioned:
    """Both prompts with the picture, and empty latents (1, 16, 13, 60, 90) of its video.

    The image is (1, H, W, 3 or 4) in [0, 1]. Raises ValueError for another VAE, or more than one picture.
    """
    check_vae(vae)
    if len(image_BHWC) != 1:
        raise ValueError(f"There are {len(image_BHWC)} pictures, and a video begins with one: choose one.")
    fitted_1HWC = fit(image_BHWC[..., :3])
    latent_1CFHW = vae.encode(fitted_1HWC)
    positive, negative = (
        [[text, {**options, PICTURE: latent_1CFHW}] for text, options in prompt]
        for prompt in (positive, negative)
    )
    notes = how_fitted(*image_BHWC.shape[1:3])
    return Conditioned(positive, negative, {"samples": _empty_latents()}, notes)


def check_vae(vae: VAE) -> None:
    """Raise ValueError unless it is CogVideoX's own."""
    if not isinstance(vae.first_stage_model, AutoencoderKLCogVideoX):
        raise ValueError(
            f"This VAE is {type(vae.first_stage_model).__name__}, and CogVideoX needs its own: load "
            "cogvideox_vae_bf16.safetensors with Load VAE."
        )


def fit(image_1HWC: Tensor, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Tensor:
    """The picture scaled until it covers the size, and the rest cut off alike on both sides."""
    pixels_HWC = (image_1HWC[0] * 255).round().clamp(0, 255).to(torch.uint8)
    return fit_picture(Image.fromarray(pixels_HWC.cpu().numpy()), size)


def how_fitted(height: int, width: int) -> list[str]:
    """What `fit` does to a picture of that size, in words for a node; nothing if it does nothing."""
    if (height, width) == (HEIGHT, WIDTH):
        return []
    scale = _scale(height, width)
    lost_rows, lost_columns = 1 - HEIGHT / (height * scale), 1 - WIDTH / (width * scale)
    cut, sides = max((lost_rows, "top and bottom"), (lost_columns, "left and right"))
    said = [f"{width} x {height} became {WIDTH} x {HEIGHT}."]
    if round(100 * cut):
        said.append(f"{100 * cut:.0f} % was cut off, {sides}.")
    if scale > 2:
        said.append(f"It was enlarged {scale:.1f} times: a larger picture gives more detail.")
    return said


def _scale(height: int, width: int) -> float:
    return max(HEIGHT / height, WIDTH / width)


def _empty_latents() -> Tensor:
    frames = (NUM_FRAMES - 1) // _FRAMES_PER_LATENT + 1
    shape_BCFHW = (1, _CHANNELS, frames, HEIGHT // _SCALE, WIDTH // _SCALE)
    return torch.zeros(shape_BCFHW, device=comfy.model_management.intermediate_device())

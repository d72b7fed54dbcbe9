"""What CogVideoX predicts for a video that starts with a picture, with classifier-free guidance."""

from functools import partial

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor

from ....flexiact.sampling import Predict, guided


def rotary_positions(
    transformer: CogVideoXTransformer3DModel, num_frames: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (N, D) of the video's tokens: whole numbers, for the size that was trained."""
    config = transformer.config
    grid = config.sample_height // config.patch_size, config.sample_width // config.patch_size
    return get_3d_rotary_pos_embed(
        embed_dim=config.attention_head_dim,
        crops_coords=((0, 0), grid),
        grid_size=grid,
        temporal_size=num_frames,
        device=device,
    )


def predict_velocity(
    transformer: CogVideoXTransformer3DModel,
    latents_BFCHW: Tensor,
    picture_BFCHW: Tensor,
    timestep_B: Tensor,
    text_embeds_BMC: Tensor,
) -> Tensor:
    """Velocity (B, F, C, H, W) of noisy latents; the picture's latent is on channels after theirs.

    Raises ValueError for videos of another shape than the trained one: diffusers would use positions that
    were never learned.
    """
    _check_shape(transformer, latents_BFCHW)
    rotary = rotary_positions(transformer, latents_BFCHW.shape[1], latents_BFCHW.device)
    (velocity_BFCHW,) = transformer(
        torch.cat([latents_BFCHW, picture_BFCHW], dim=2).to(transformer.dtype),
        text_embeds_BMC.to(transformer.dtype),
        timestep_B,
        image_rotary_emb=rotary,
        return_dict=False,
    )
    return velocity_BFCHW.to(latents_BFCHW)


def latents_shape(transformer: CogVideoXTransformer3DModel) -> tuple[int, int, int, int]:
    """The one shape (F, C, H, W) of latents that its learned positions know."""
    config = transformer.config
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    return frames, config.in_channels // 2, config.sample_height, config.sample_width


def _check_shape(transformer: CogVideoXTransformer3DModel, latents_BFCHW: Tensor) -> None:
    config, wanted = transformer.config, latents_shape(transformer)
    found = tuple(latents_BFCHW.shape[1:])
    if found != wanted:
        raise ValueError(
            f"The latents have the shape {found}, and this model knows only {wanted} (frames, channels, "
            f"height, width): make a video of {config.sample_frames} frames, "
            f"{8 * config.sample_width} x {8 * config.sample_height}."
        )


def guided_velocity(
    transformer: CogVideoXTransformer3DModel,
    picture_1CHW: Tensor,
    prompt: Tensor,
    negative: Tensor,
    cfg: float,
) -> Predict:
    """A `Predict`, as `sampling.guided` makes them."""
    return guided(partial(predict_velocity, transformer), picture_1CHW, prompt, negative, cfg)

"""The clean first frame: the video's frame 0 is the user's picture, free of noise, at every step."""

import torch
from torch import Tensor

PROMISE = (
    "frame 0's latent is your picture's, bit for bit; as pixels it is what the decoder makes of it, or your "
    "picture itself"
)
"""Of frame 0, in the same words everywhere; then comes with which switch."""


def replace_first_frame(video_FCHW: Tensor, frame_1CHW: Tensor) -> Tensor:
    """The video with frame 0 exchanged, as a new tensor. Leading axes (batches of videos) are allowed.

    What the U-Net sees in FLASH: <z0, z_t, ..., z_t> (arXiv:2503.00276, A2.1), in DDPM scale.
    """
    frame = frame_1CHW.to(video_FCHW).expand_as(video_FCHW[..., :1, :, :, :])
    return torch.cat([frame, video_FCHW[..., 1:, :, :, :]], dim=-4)


def check_reference(latent_BCHW: Tensor) -> Tensor:
    """The reference latent, if it is usable: one picture, with content, finite.

    Raises ValueError with what was found otherwise.
    """
    if latent_BCHW.ndim != 4:
        raise ValueError(
            f"The reference must be one encoded picture (1, channels, height, width), but its shape is "
            f"{tuple(latent_BCHW.shape)}: encode the picture with the checkpoint's own VAE."
        )
    if latent_BCHW.shape[0] != 1:
        raise ValueError(
            f"The reference holds {latent_BCHW.shape[0]} pictures, but the first frame is one picture: "
            "pick one with Get Latent From Batch."
        )
    if not torch.isfinite(latent_BCHW).all():
        raise ValueError(
            "The reference holds values that are not finite (NaN or infinity): encode the picture again."
        )
    if not latent_BCHW.any():
        raise ValueError(
            "The reference is empty (all zeros): connect VAE Encode of your picture, not Empty Latent Image."
        )
    return latent_BCHW


def check_num_frames(num_frames: int) -> None:
    """Raise ValueError unless so many frames make a video."""
    if num_frames < 2:
        raise ValueError(
            f"A video needs 2 frames or more, but `frames` is {num_frames}: 16 is what most motions know."
        )


def first_frame_latents(reference_1CHW: Tensor, num_frames: int) -> Tensor:
    """Start latents of a video (F, C, H, W): the reference, then zeros, to which a sampler adds its noise."""
    check_num_frames(num_frames)
    start_FCHW = torch.zeros(num_frames, *reference_1CHW.shape[1:], dtype=reference_1CHW.dtype)
    return replace_first_frame(start_FCHW.to(reference_1CHW.device), reference_1CHW)

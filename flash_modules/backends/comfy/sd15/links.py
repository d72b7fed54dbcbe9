"""First Frame's LATENT beside a MODEL that does not know its picture: a link that a graph forgot.

ComfyUI hands a sampler's MODEL nothing but tensors, so each part looks where it can: the wrapper of a
sampling run at the latents, the nodes after the sampler at frame 0, and First Frame at the prompt
(first_frame_notes.py).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ....flash.first_frame import first_frame_latents
from .options import FIRST_FRAME, MOTION

START = "flash_start"
"""In a LATENT: the start latents that First Frame gave. Samplers hand it on."""
_NOT_THE_PICTURE = 0.01
"""Relative difference of frame 0; what a custom sampler calls denoised differs by rounding."""


def start_latents(reference_1CHW: Tensor, num_frames: int) -> dict[str, Tensor]:
    """First Frame's LATENT, by which the nodes after the sampler know what frame 0 must be."""
    start_FCHW = first_frame_latents(reference_1CHW, num_frames)
    return {"samples": start_FCHW, START: start_FCHW}


def check_run(options: Mapping[str, Any], latents_FCHW: Tensor, mask: Tensor | None) -> None:
    """Raise ValueError before the first step if motion, picture and latents do not come together."""
    first, motion = options.get(FIRST_FRAME), MOTION in options
    if first is not None and not motion:
        raise ValueError(
            "This MODEL knows your picture, but no motion: put Apply Action between the checkpoint and First "
            "Frame."
        )
    starts = bool(latents_FCHW[:1].any()) and not latents_FCHW[1:].any()
    kept_by_mask = mask is not None and not mask[:1].any()  # another way to keep a frame, and a known one
    if starts and first is None and not kept_by_mask:
        raise ValueError(
            "The latents begin with a picture, but this MODEL does not know it: connect First Frame's MODEL "
            "to the sampler, beside its LATENT."
        )
    if starts and first is not None and _is_another(latents_FCHW[:1], first.latent_1CHW):
        raise ValueError(
            "The latents begin with another picture than the MODEL: connect MODEL and LATENT of the same "
            "First Frame to the sampler."
        )


def _is_another(frame_1CHW: Tensor, picture_1CHW: Tensor) -> bool:
    """False for other sizes, which others complain about."""
    picture_1CHW = picture_1CHW.to(frame_1CHW)
    return frame_1CHW.shape == picture_1CHW.shape and bool(
        (frame_1CHW - picture_1CHW).norm() > _NOT_THE_PICTURE * picture_1CHW.norm()
    )


def sampled_video(latent: Mapping[str, Any]) -> Tensor:
    """The frames of a LATENT.

    Raises ValueError if they were sampled from First Frame's latents without its MODEL: their frame 0 is
    another picture. Latents of another size or number of frames were cut since, and are not judged.
    """
    frames_FCHW, start_FCHW = latent["samples"], latent.get(START)
    if start_FCHW is None or frames_FCHW.shape != start_FCHW.shape:
        return frames_FCHW
    if _is_another(frames_FCHW[:1], start_FCHW[:1]):
        raise ValueError(
            "Frame 0 of this video is not your picture: the sampler had First Frame's LATENT, but another "
            "MODEL. Connect First Frame's MODEL to the sampler, and run again."
        )
    return frames_FCHW

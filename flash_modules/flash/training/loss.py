"""What a training step draws, what the model sees, and the loss (FLASH, arXiv:2503.00276, Eq. 2 and A2.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..motion_alignment import VideoCall
from .noise_law import NoiseLaw, TimestepConfig

Predict = Callable[[Tensor, Tensor, Tensor, VideoCall | None], Tensor]
"""``predict(latents_BFCHW, timestep_B, text_embeds, call) -> noise or velocity, BFCHW``.

The call holds the pairs; it is None without twins.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseDraw:
    """Noise of one clip's videos: one timestep for all of them, and noise for each or shared (Eq. 2)."""

    timestep: float
    noise_BFCHW: Tensor


def draw_noise(
    shape: torch.Size,
    law: NoiseLaw,
    config: TimestepConfig,
    generator: torch.Generator,
    *,
    shared: bool = False,
) -> NoiseDraw:
    """Timestep and noise for one clip's latents (B, F, C, H, W), drawn on the CPU: equal on all devices.

    With `shared` noise all videos get the first one's, which is the same either way.
    """
    timestep = law.draw(config, generator)
    noise_BFCHW = torch.randn(shape, generator=generator)
    return NoiseDraw(timestep=timestep, noise_BFCHW=noise_BFCHW[:1].expand(shape) if shared else noise_BFCHW)


def denoising_losses(
    predict: Predict,
    latents_BFCHW: Tensor,
    noise_BFCHW: Tensor,
    timestep_P: Tensor,
    text_embeds_PMC: Tensor,
    call: VideoCall | None,
    *,
    law: NoiseLaw,
) -> Tensor:
    """Mean squared errors (V, P) of what is predicted of P clips: row 0 originals, row 1 twins if any.

    Arguments and sources are those of `squared_errors`.
    """
    errors_BGCHW = squared_errors(
        predict, latents_BFCHW, noise_BFCHW, timestep_P, text_embeds_PMC, call, law=law
    )
    return rearrange(errors_BGCHW.mean(dim=(1, 2, 3, 4)), "(v p) -> v p", p=timestep_P.shape[0])


def squared_errors(
    predict: Predict,
    latents_BFCHW: Tensor,
    noise_BFCHW: Tensor,
    timestep_P: Tensor,
    text_embeds_PMC: Tensor,
    call: VideoCall | None,
    *,
    law: NoiseLaw,
) -> Tensor:
    """Squared errors (B, F - 1, C, H, W) of what is predicted of P clips, without those of frame 0.

    Latents and noise are [originals, twins] along the batch; a clip's videos share timestep and prompt. That
    frame 0 counts in none of them is not in the paper, but in the sources that it follows (LAMP,
    arXiv:2310.10769; ConsistI2V, arXiv:2402.04324).
    """
    videos = latents_BFCHW.shape[0] // timestep_P.shape[0]
    timestep_B = repeat(timestep_P, "p -> (v p)", v=videos)
    text_embeds_BMC = repeat(text_embeds_PMC, "p m c -> (v p) m c", v=videos)
    noised_BFCHW = law.noised(latents_BFCHW, noise_BFCHW, timestep_B)
    found_BFCHW = predict(noised_BFCHW, timestep_B, text_embeds_BMC, call)
    target_BFCHW = law.target(latents_BFCHW, noise_BFCHW, timestep_B)
    return (found_BFCHW - target_BFCHW)[:, 1:].square()


def total_loss(losses_VP: Tensor) -> Tensor:
    """Eq. 2: the sum over a clip's videos, L_ori + L_aug; the mean over clips."""
    return losses_VP.sum(0).mean()

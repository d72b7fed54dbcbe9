"""What a training step draws, what the U-Net sees, and the loss (FLASH, arXiv:2503.00276, Eq. 2 and A2.1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from ...animatediff.noise_schedule import NUM_TIMESTEPS, Prediction, alphas_cumprod
from ..first_frame import replace_first_frame
from ..motion_alignment import VideoCall

Predict = Callable[[Tensor, Tensor, Tensor, VideoCall | None], Tensor]
"""``predict(latents_BFCHW, timestep_B, text_embeds, call) -> noise or velocity, BFCHW``.

The call holds the pairs; it is None without twins.
"""


@dataclass(frozen=True, kw_only=True)
class TimestepConfig:
    """Law of the timesteps: p(t) ~ 1 - alpha cos(pi t / 1000), noisier ones more often.

    Not in the paper, which names no law: this is the one of its reference 30 (ReVersion, arXiv:2303.13495).
    """

    alpha: float = 0.5
    """0 = all timesteps alike."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(
                f"`alpha` must lie between 0 and 1, but it is {self.alpha}: 0.5 is the usual one."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseDraw:
    """Noise of one clip's videos: one timestep for all of them, and noise for each or shared (Eq. 2)."""

    timestep: int
    noise_BFCHW: Tensor


def timestep_cdf(config: TimestepConfig) -> Tensor:
    """Chances (1000,) of a timestep of t or less: F(u) = u - alpha / pi sin(pi u), u = (t + 1) / 1000."""
    u_T = torch.arange(1, NUM_TIMESTEPS + 1, dtype=torch.float64) / NUM_TIMESTEPS
    return u_T - config.alpha / math.pi * torch.sin(math.pi * u_T)


def draw_timestep(config: TimestepConfig, generator: torch.Generator) -> int:
    """One timestep of 0 to 999: the first at which the distribution function exceeds a uniform number."""
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    return int(torch.searchsorted(timestep_cdf(config), uniform, right=True))


def draw_noise(
    shape: torch.Size, config: TimestepConfig, generator: torch.Generator, *, shared: bool = False
) -> NoiseDraw:
    """Timestep and noise for one clip's latents (B, F, C, H, W), drawn on the CPU: equal on all devices.

    With `shared` noise all videos get the first one's, which is the same either way.
    """
    timestep = draw_timestep(config, generator)
    noise_BFCHW = torch.randn(shape, generator=generator)
    return NoiseDraw(timestep=timestep, noise_BFCHW=noise_BFCHW[:1].expand(shape) if shared else noise_BFCHW)


def add_noise(latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
    """Latents at this timestep with frame 0 free of noise, <z0, z_t, ..., z_t> (A2.1), in DDPM scale."""
    signal_B1111, spread_B1111 = _shares(timestep_B, latents_BFCHW)
    noised_BFCHW = signal_B1111 * latents_BFCHW + spread_B1111 * noise_BFCHW
    return replace_first_frame(noised_BFCHW, latents_BFCHW[:, :1])


def target(latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor, prediction: Prediction) -> Tensor:
    """What a U-Net is to predict: the noise, or the velocity v = sqrt(a_t) noise - sqrt(1 - a_t) z0."""
    if prediction == "epsilon":
        return noise_BFCHW
    signal_B1111, spread_B1111 = _shares(timestep_B, latents_BFCHW)
    return signal_B1111 * noise_BFCHW - spread_B1111 * latents_BFCHW


def _shares(timestep_B: Tensor, like_BFCHW: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), as (B, 1, 1, 1, 1) of this device and dtype; a_t are the products of
    1 - beta."""
    alphas_T = alphas_cumprod(torch.float64).to(like_BFCHW.device)
    alphas_B1111 = rearrange(alphas_T[timestep_B.to(like_BFCHW.device)], "b -> b 1 1 1 1")
    return alphas_B1111.sqrt().to(like_BFCHW), (1 - alphas_B1111).sqrt().to(like_BFCHW)


def denoising_losses(
    predict: Predict,
    latents_BFCHW: Tensor,
    noise_BFCHW: Tensor,
    timestep_P: Tensor,
    text_embeds_PMC: Tensor,
    call: VideoCall | None,
    *,
    prediction: Prediction,
) -> Tensor:
    """Mean squared errors (V, P) of what is predicted of P clips: row 0 originals, row 1 twins if any.

    Arguments and sources are those of `squared_errors`.
    """
    errors_BGCHW = squared_errors(
        predict, latents_BFCHW, noise_BFCHW, timestep_P, text_embeds_PMC, call, prediction=prediction
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
    prediction: Prediction,
) -> Tensor:
    """Squared errors (B, F - 1, C, H, W) of what is predicted of P clips, without those of frame 0.

    Latents and noise are [originals, twins] along the batch; a clip's videos share timestep and prompt. That
    frame 0 counts in none of them is not in the paper, but in the sources that it follows (LAMP,
    arXiv:2310.10769; ConsistI2V, arXiv:2402.04324).
    """
    videos = latents_BFCHW.shape[0] // timestep_P.shape[0]
    timestep_B = repeat(timestep_P, "p -> (v p)", v=videos)
    text_embeds_BMC = repeat(text_embeds_PMC, "p m c -> (v p) m c", v=videos)
    noised_BFCHW = add_noise(latents_BFCHW, noise_BFCHW, timestep_B)
    found_BFCHW = predict(noised_BFCHW, timestep_B, text_embeds_BMC, call)
    target_BFCHW = target(latents_BFCHW, noise_BFCHW, timestep_B, prediction)
    return (found_BFCHW - target_BFCHW)[:, 1:].square()


def total_loss(losses_VP: Tensor) -> Tensor:
    """Eq. 2: the sum over a clip's videos, L_ori + L_aug; the mean over clips."""
    return losses_VP.sum(0).mean()

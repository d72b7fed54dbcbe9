"""CogVideoX's own sampling as one of ComfyUI's samplers."""

from collections.abc import Iterator

import comfy.samplers
import torch
from comfy.utils import model_trange
from einops import rearrange
from torch import Tensor

from ....flexiact.sampling import dpm_step, draw_step_noise, steps_between


def exact_sampler() -> comfy.samplers.KSAMPLER:
    """A SAMPLER that does what CogVideoXDPMScheduler does, on the sigmas of the scheduler "simple".

    ComfyUI's `dpmpp_2m_sde` differs by the correction after the first step, which begins infinitely far away.
    """
    return comfy.samplers.KSAMPLER(_sample)


@torch.no_grad()
def _sample(model, x, sigmas, extra_args=None, callback=None, disable=None) -> Tensor:
    """Latents (B, C, F, H, W) in ComfyUI's scale, signal + sigma * noise, after all steps."""
    extra_args = extra_args or {}
    schedule = model.inner_model.model_patcher.get_model_object("model_sampling")
    timesteps = [int(schedule.timestep(sigma)) for sigma in sigmas[:-1]]
    steps = steps_between(timesteps, [_alpha(float(sigma), float(schedule.sigma_max)) for sigma in sigmas])
    noises = _noises(x, extra_args.get("seed") or 0)
    before = None
    for i in model_trange(len(steps), disable=disable):
        sigma, after = sigmas[i], sigmas[i + 1]
        denoised = model(x, sigma * x.new_ones(len(x)), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        latents = x * (1 + sigma**2) ** -0.5
        x = dpm_step(latents, denoised, before, next(noises), steps[i]) * (1 + after**2) ** 0.5
        before = denoised
    return x


def _alpha(sigma: float, sigma_max: float) -> float:
    """The signal's share of the variance; ComfyUI's largest sigma stands for noise alone."""
    return 0.0 if sigma >= sigma_max else 1 / (1 + sigma**2)


def _noises(like_BCFHW: Tensor, seed: int) -> Iterator[Tensor]:
    """Each step's noise for all videos, drawn one after another."""
    batch, channels, frames, height, width = like_BCFHW.shape
    draws = draw_step_noise(frames, channels, height, width, seed)
    while True:
        noise_BFCHW = torch.stack([next(draws) for _ in range(batch)])
        yield rearrange(noise_BFCHW, "b f c h w -> b c f h w").to(like_BCFHW)

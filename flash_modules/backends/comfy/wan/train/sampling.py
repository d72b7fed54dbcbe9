"""A video with what is learned so far, by core's own sampler."""

import comfy.sample
import comfy.samplers
import torch
from comfy.model_sampling import ModelSamplingDiscreteFlow
from einops import rearrange
from torch import Tensor

from .....flash.sampling import Predict, SamplerConfig

_SAMPLER, _SCHEDULER = "uni_pc", "simple"
"""Those of core's template for this base."""


@torch.no_grad()
def sample_video(
    predict: Predict,
    model_sampling: ModelSamplingDiscreteFlow,
    reference_1CHW: Tensor,
    prompt_1MC: Tensor,
    negative_1MC: Tensor,
    num_frames: int,
    seed: int,
    config: SamplerConfig,
) -> Tensor:
    """Latents (F, C, h, w) of so many latent frames, the first of which is the reference.

    It is the video of KSampler behind Wan22ImageToVideoLatent, with the same seed.
    """
    latents_1CFHW = rearrange(
        torch.cat([reference_1CHW, reference_1CHW.new_zeros(num_frames - 1, *reference_1CHW.shape[1:])]),
        "f c h w -> 1 c f h w",
    )
    sigmas = _sigmas(model_sampling, config.steps).to(latents_1CFHW)
    noise_1CFHW = comfy.sample.prepare_noise(latents_1CFHW.cpu(), seed).to(latents_1CFHW)
    start_1CFHW = model_sampling.noise_scaling(sigmas[0], noise_1CFHW, latents_1CFHW, max_denoise=True)

    def denoised(x_1CFHW: Tensor, sigma_1: Tensor, **_: object) -> Tensor:
        video_1FCHW = rearrange(_kept(x_1CFHW), "b c f h w -> b f c h w")
        timestep_1 = model_sampling.timestep(sigma_1)
        velocity_1FCHW = predict(video_1FCHW, timestep_1, prompt_1MC)
        if config.cfg != 1.0:
            without_1FCHW = predict(video_1FCHW, timestep_1, negative_1MC)
            velocity_1FCHW = without_1FCHW + config.cfg * (velocity_1FCHW - without_1FCHW)
        clean_1FCHW = video_1FCHW - rearrange(sigma_1, "b -> b 1 1 1 1") * velocity_1FCHW
        return _kept(rearrange(clean_1FCHW, "b f c h w -> b c f h w"))

    def _kept(x_1CFHW: Tensor) -> Tensor:
        return torch.cat([latents_1CFHW[:, :, :1], x_1CFHW[:, :, 1:]], dim=2)

    sampler = comfy.samplers.sampler_object(_SAMPLER)
    found_1CFHW = sampler.sampler_function(
        denoised, start_1CFHW, sigmas, extra_args={}, callback=None, disable=True, **sampler.extra_options
    )
    found_1CFHW = model_sampling.inverse_noise_scaling(
        sigmas[-1], found_1CFHW
    )  # the sampler writes to sigmas
    return rearrange(_kept(found_1CFHW), "1 c f h w -> f c h w")


def _sigmas(model_sampling: ModelSamplingDiscreteFlow, steps: int) -> Tensor:
    """Those of KSampler: of this sampler it takes one step more, and leaves the last but one out."""
    sigmas = comfy.samplers.calculate_sigmas(model_sampling, _SCHEDULER, steps + 1)
    return torch.cat([sigmas[:-2], sigmas[-1:]])

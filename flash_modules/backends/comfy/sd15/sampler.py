"""The paper's sampler as one function: DDIM, clean first frame, AdaIN."""

import math

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....animatediff.noise_schedule import NUM_TIMESTEPS, ddim_timesteps
from ....flash.adain import AdaINConfig, adain
from ....flash.first_frame import first_frame_latents
from ....flash.sampling import SamplerConfig
from .first_frame import add_first_frame
from .options import MOTION


def sample_video(
    model: ModelPatcher,
    positive,
    negative,
    reference: Tensor,
    *,
    seed: int,
    config: SamplerConfig,
    style: AdaINConfig,
) -> Tensor:
    """Latents (F, 4, h, w) of a video that starts with the reference, an unscaled latent (1, 4, h, w).

    Raises ValueError if the MODEL has no motion or the reference is unusable.
    """
    if not model.get_additional_models_with_key(MOTION):
        raise ValueError(
            "This MODEL has no motion: put Apply Action between the checkpoint and FLASH Video Sampler."
        )
    m = add_first_frame(model, reference, node="FLASH Video Sampler")
    latents = first_frame_latents(reference, config.num_frames)
    schedule = m.get_model_object("model_sampling")
    if len(schedule.sigmas) != NUM_TIMESTEPS:
        raise ValueError(
            f"This MODEL's noise schedule has {len(schedule.sigmas)} levels, and FLASH Video Sampler's DDIM "
            f"needs {NUM_TIMESTEPS}: remove the ModelSampling node (LCM), or use First Frame and KSampler."
        )
    sigmas = torch.cat([schedule.sigmas[ddim_timesteps(config.steps)], schedule.sigmas.new_zeros(1)])
    samples = comfy.sample.sample_custom(
        m,
        comfy.sample.prepare_noise(latents, seed) * _start_scale(sigmas[0], schedule.sigma_max),
        config.cfg,
        comfy.samplers.sampler_object("ddim"),
        sigmas,
        positive,
        negative,
        latents,
        callback=latent_preview.prepare_callback(m, config.steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return adain(samples, style)


def _start_scale(sigma: Tensor, sigma_max: Tensor) -> float:
    """DDIM starts from noise of deviation 1; ComfyUI would show the U-Net sigma / sqrt(1 + sigma^2) of it.

    At the highest sigma ComfyUI starts like DDIM by itself.
    """
    return 1.0 if math.isclose(sigma, sigma_max, rel_tol=1e-5) else float((1 + sigma**2).sqrt() / sigma)

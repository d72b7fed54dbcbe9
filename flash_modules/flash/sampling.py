"""The paper's sampling: DDIM on a video whose first frame is clean at every step, then AdaIN."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..animatediff.noise_schedule import NUM_TIMESTEPS, Prediction, alphas_cumprod, ddim_timesteps
from .adain import AdaINConfig, adain
from .first_frame import check_num_frames, check_reference, first_frame_latents, replace_first_frame

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``predict(latents_BFCHW, timestep_B, text_embeds) -> noise or velocity, BFCHW``, in DDPM scale."""


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """FLASH's inference settings (arXiv:2503.00276, A3.2)."""

    num_frames: int = 16
    steps: int = 25
    cfg: float = 7.5

    def __post_init__(self) -> None:
        check_num_frames(self.num_frames)
        ddim_timesteps(self.steps)
        if not math.isfinite(self.cfg):
            raise ValueError(f"`cfg` must be a number, but it is {self.cfg}: 7.5 is a good start.")


def sample_video(
    predict: Predict,
    reference_1CHW: Tensor,
    prompt: Tensor,
    negative: Tensor,
    *,
    prediction: Prediction,
    seed: int,
    config: SamplerConfig,
    style: AdaINConfig,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Latents (F, C, H, W) of a video that starts with the reference, a scaled latent.

    With equal seeds it is the video of ComfyUI's KSampler with `ddim` and `ddim_uniform`. `prompt` and
    `negative` are text embeddings (1, M, C), or (1, F, M, C) for a prompt per frame; `prediction` is what
    `predict` gives.
    """
    latents_FCHW = first_frame_latents(check_reference(reference_1CHW), config.num_frames)
    start_FCHW = ksampler_start(draw_noise(latents_FCHW.shape, seed), config.steps).to(latents_FCHW)
    video_FCHW = denoise(
        predict,
        start_FCHW,
        reference_1CHW,
        prompt,
        negative,
        prediction=prediction,
        config=config,
        on_step=on_step,
    )
    return adain(video_FCHW, style)


def draw_noise(shape: torch.Size, seed: int) -> Tensor:
    """The noise that ComfyUI draws for this seed: on the CPU and in fp32, so equal on all devices."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)


def ksampler_start(noise_FCHW: Tensor, num_steps: int) -> Tensor:
    """The noise as ComfyUI's KSampler shows it to the U-Net at first: as much as the first timestep holds.

    DDIM as published starts with the noise itself, which is 0.12 % stronger for 25 steps. From the schedule's
    last timestep ComfyUI starts so too.
    """
    timestep = ddim_timesteps(num_steps)[0]
    if timestep == NUM_TIMESTEPS - 1:
        return noise_FCHW
    deviation: float = (1 - float(alphas_cumprod(torch.float32)[timestep])) ** 0.5
    return noise_FCHW * deviation


@torch.inference_mode()
def denoise(
    predict: Predict,
    start_FCHW: Tensor,
    reference_1CHW: Tensor,
    prompt: Tensor,
    negative: Tensor,
    *,
    prediction: Prediction,
    config: SamplerConfig,
    start_timestep: int = NUM_TIMESTEPS - 1,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """A run of DDIM from latents with the noise of this timestep; those above it are left out.

    Frame 0 of the result is the reference bit for bit.
    """
    latents_FCHW = start_FCHW
    for timestep in ddim_timesteps(config.steps):
        if timestep > start_timestep:
            continue
        latents_FCHW = replace_first_frame(latents_FCHW, reference_1CHW)
        timestep_1 = torch.tensor([timestep], device=latents_FCHW.device)
        (found_FCHW,) = _guided(predict, latents_FCHW[None], timestep_1, prompt, negative, config.cfg)
        latents_FCHW = ddim_step(found_FCHW, latents_FCHW, timestep, config.steps, prediction)
        on_step()
    return replace_first_frame(latents_FCHW, reference_1CHW)


def ddim_step(
    found_FCHW: Tensor, latents_FCHW: Tensor, timestep: int, num_steps: int, prediction: Prediction
) -> Tensor:
    """Latents one of so many steps further on, from what the U-Net found in them: DDIM (arXiv:2010.02502),
    Eq. 12 without new noise. The last step ends at clean latents."""
    alphas_T = alphas_cumprod(torch.float32)
    alpha = alphas_T[timestep]
    before = timestep - NUM_TIMESTEPS // num_steps
    alpha_before = alphas_T[before] if before >= 0 else torch.tensor(1.0)
    if prediction == "epsilon":
        noise_FCHW = found_FCHW
        clean_FCHW = (latents_FCHW - (1 - alpha) ** 0.5 * found_FCHW) / alpha**0.5
    else:
        noise_FCHW = alpha**0.5 * found_FCHW + (1 - alpha) ** 0.5 * latents_FCHW
        clean_FCHW = alpha**0.5 * latents_FCHW - (1 - alpha) ** 0.5 * found_FCHW
    return alpha_before**0.5 * clean_FCHW + (1 - alpha_before) ** 0.5 * noise_FCHW


def _guided(
    predict: Predict, latents_BFCHW: Tensor, timestep_B: Tensor, prompt: Tensor, negative: Tensor, cfg: float
) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598), scaled so that cfg 1 is the prompt alone."""
    cond_BFCHW = predict(latents_BFCHW, timestep_B, prompt)
    if cfg == 1.0:
        return cond_BFCHW
    uncond_BFCHW = predict(latents_BFCHW, timestep_B, negative)
    return uncond_BFCHW + cfg * (cond_BFCHW - uncond_BFCHW)

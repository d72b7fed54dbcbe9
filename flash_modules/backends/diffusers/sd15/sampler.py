"""The paper's sampler: DDIM on a video whose first frame is clean at every step."""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ....animatediff.noise_schedule import BETA_END, BETA_START, NUM_TIMESTEPS, Prediction, ddim_timesteps
from ....flash.adain import AdaINConfig, adain
from ....flash.first_frame import check_reference, first_frame_latents, replace_first_frame
from ....flash.sampling import SamplerConfig

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``predict(latents_BFCHW, timestep_B, text_embeds) -> noise or velocity, BFCHW``, as of AnimatedUNet."""


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
    return noise_FCHW * (1 - float(ddim_scheduler("epsilon").alphas_cumprod[timestep])) ** 0.5


def ddim_scheduler(prediction: Prediction) -> DDIMScheduler:
    """diffusers' DDIM on AnimateDiff's schedule, with the timesteps of `ddim_timesteps`."""
    return DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type=prediction,
    )


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
    scheduler = ddim_scheduler(prediction)
    scheduler.set_timesteps(config.steps)
    latents_FCHW = start_FCHW
    for timestep in scheduler.timesteps[scheduler.timesteps <= start_timestep].tolist():
        latents_FCHW = replace_first_frame(latents_FCHW, reference_1CHW)
        timestep_1 = torch.tensor([timestep], device=latents_FCHW.device)
        (found_FCHW,) = _guided(predict, latents_FCHW[None], timestep_1, prompt, negative, config.cfg)
        latents_FCHW = scheduler.step(found_FCHW, timestep, latents_FCHW).prev_sample
        on_step()
    return replace_first_frame(latents_FCHW, reference_1CHW)


def _guided(
    predict: Predict, latents_BFCHW: Tensor, timestep_B: Tensor, prompt: Tensor, negative: Tensor, cfg: float
) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598), scaled so that cfg 1 is the prompt alone."""
    cond_BFCHW = predict(latents_BFCHW, timestep_B, prompt)
    if cfg == 1.0:
        return cond_BFCHW
    uncond_BFCHW = predict(latents_BFCHW, timestep_B, negative)
    return uncond_BFCHW + cfg * (cond_BFCHW - uncond_BFCHW)

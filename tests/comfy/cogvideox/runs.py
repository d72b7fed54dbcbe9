"""Short sampling runs: through ComfyUI's samplers, and the same by hand on diffusers' model and scheduler."""

from collections.abc import Callable, Iterator

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.schedulers import scheduling_dpm_cogvideox
from torch import Tensor

from flash_pack.flash_modules.flexiact.sampling import draw_start, draw_step_noise
from flash_pack.tests.comfy.cogvideox.small_cogvideox import (
    FRAMES,
    HEIGHT,
    TEXT,
    TEXT_WIDTH,
    WIDE,
    SlowPerformance,
    slow_velocity,
)

SEED, CFG = 11, 6.0
SHAPE_FCHW = (FRAMES, 16, HEIGHT, WIDE)
SCALE = 0.7
"""Of CogVideoX-5b's latents."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PICTURE = draw(1, 16, 1, HEIGHT, WIDE, seed=1)
"""An unscaled latent, (1, C, 1, H, W)."""


def prompt(seed: int, picture: Tensor | None = PICTURE, length: int = TEXT, width: int = TEXT_WIDTH) -> list:
    return [[draw(1, length, width, seed=seed), {} if picture is None else {"concat_latent_image": picture}]]


def empty_latents(batch: int = 1) -> Tensor:
    return torch.zeros(batch, 16, FRAMES, HEIGHT, WIDE)


def comfyui_run(m, sampler, steps: int, **changes) -> Tensor:
    """Scaled latents (B, C, F, H, W) after a run of a custom sampler on the scheduler "simple"."""
    import comfy.sample
    import comfy.samplers

    latents = changes.get("latents", empty_latents())
    sigmas = comfy.samplers.calculate_sigmas(m.get_model_object("model_sampling"), "simple", steps)
    out = comfy.sample.sample_custom(
        m, comfy.sample.prepare_noise(latents, SEED), CFG, sampler, sigmas,
        changes.get("positive", prompt(2)), changes.get("negative", prompt(3)), latents,
        seed=SEED, disable_pbar=True,
    )  # fmt: skip
    return out * SCALE


def guided(
    twin: CogVideoXTransformer3DModel, slow: Callable[[int], SlowPerformance]
) -> Callable[[Tensor, int], Tensor]:
    """diffusers' velocity (F, C, H, W) of noisy latents at a timestep, guidance included."""
    picture = torch.zeros(1, *SHAPE_FCHW)
    picture[:, :1] = SCALE * PICTURE.transpose(1, 2)

    def predict(latents_FCHW: Tensor, timestep: int) -> Tensor:
        cond, uncond = (
            slow_velocity(twin, latents_FCHW[None], picture, timestep, prompt(seed)[0][0], slow(timestep))[0]
            for seed in (2, 3)
        )
        return uncond + CFG * (cond - uncond)

    return predict


def scheduler_run(predict: Callable[[Tensor, int], Tensor], steps: int, monkeypatch) -> Tensor:
    """Latents (F, C, H, W) as diffusers' pipeline samples them, with our noise in place of its own."""
    scheduler = CogVideoXDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        rescale_betas_zero_snr=True, snr_shift_scale=1.0, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    latents, old = draw_start(*SHAPE_FCHW, seed=SEED), None
    noises: Iterator[Tensor] = draw_step_noise(*SHAPE_FCHW, seed=SEED)
    timesteps = scheduler.timesteps.tolist()
    for i, timestep in enumerate(timesteps):
        noise = next(noises)
        monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", lambda *_, noise=noise, **__: noise)
        back = timesteps[i - 1] if i else None
        latents, old = scheduler.step(predict(latents, timestep), old, timestep, back, latents)
    return latents


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())

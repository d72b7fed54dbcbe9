"""The DDIM run against diffusers."""

from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from flash_pack.flash_modules.animatediff.noise_schedule import PREDICTIONS, Prediction, ddim_timesteps
from flash_pack.flash_modules.backends.diffusers.sd15 import AnimatedUNet, add_action
from flash_pack.flash_modules.flash.sampling import SamplerConfig, denoise
from flash_pack.tests.backends.small_models import TEXT_WIDTH, small_motion, small_unet

F, C, H, W = 3, 4, 6, 8


@cache
def model() -> AnimatedUNet:
    return add_action(small_unet(), small_motion(), None)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


REFERENCE = random(1, C, H, W, seed=1)
PROMPT, NEGATIVE = random(1, 5, TEXT_WIDTH, seed=2), random(1, 5, TEXT_WIDTH, seed=3)


def published_scheduler(prediction: Prediction) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction,
    )


@torch.inference_mode()
def loop_by_hand(start_FCHW: Tensor, steps: int, cfg: float, prediction: Prediction) -> Tensor:
    """DDIM as anybody writes it with diffusers."""
    scheduler = published_scheduler(prediction)
    scheduler.set_timesteps(steps)
    latents = start_FCHW.clone()
    latents[0] = REFERENCE[0]
    for t in scheduler.timesteps:
        cond = model().predict(latents[None], t[None], PROMPT)[0]
        uncond = model().predict(latents[None], t[None], NEGATIVE)[0]
        latents = scheduler.step(uncond + cfg * (cond - uncond), t, latents).prev_sample
        latents[0] = REFERENCE[0]
    return latents


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("steps", "cfg"), [(4, 7.5), (7, 2.0)])
def test_equals_a_plain_ddim_run_of_diffusers(steps: int, cfg: float, prediction: Prediction) -> None:
    start = random(F, C, H, W, seed=4)
    config = SamplerConfig(num_frames=F, steps=steps, cfg=cfg)
    out = denoise(model().predict, start, REFERENCE, PROMPT, NEGATIVE, prediction=prediction, config=config)
    expected = loop_by_hand(start, steps, cfg, prediction)
    assert (out - expected).norm() <= 1e-5 * expected.norm()


def test_timesteps_are_those_of_the_core() -> None:
    for steps in (1, 8, 25, 30, 999):
        scheduler = published_scheduler("epsilon")
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == ddim_timesteps(steps)

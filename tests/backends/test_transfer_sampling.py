"""The exact sampler against diffusers' CogVideoXDPMScheduler, on the model's predictions with guidance."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from diffusers import CogVideoXDPMScheduler
from diffusers.schedulers import scheduling_dpm_cogvideox
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer, guided_velocity
from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod, trailing_timesteps
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.sampling import (
    Predict,
    draw_start,
    draw_step_noise,
    sample_latents,
)
from flash_pack.tests.backends.flexiact_oracle import small_inputs
from flash_pack.tests.backends.small_cogvideox import (
    HEIGHT,
    LATENT_FRAMES,
    WIDTH_LATENT,
    small_action,
    small_adapter,
    small_transformer,
)

SHAPE = (LATENT_FRAMES, 16, HEIGHT, WIDTH_LATENT)
Run = Callable[[Predict, int], Tensor]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def predict() -> Predict:
    transformer, inputs = small_transformer(), small_inputs()
    add_transfer(transformer, [Performance(action=small_action())], small_adapter())
    return guided_velocity(transformer, inputs.picture_BFCHW[0, :1], *inputs.text_embeds_BMC.split(1), 6.0)


def _scheduler(num_steps: int) -> CogVideoXDPMScheduler:
    """As CogVideoX-5b-I2V's scheduler_config.json has it."""
    scheduler = CogVideoXDPMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Run:
    """diffusers' run; its scheduler draws twice in a step and takes no noise, so it is handed ours."""

    def run(predict: Predict, num_steps: int) -> Tensor:
        scheduler = _scheduler(num_steps)
        latents_FCHW, before = draw_start(*SHAPE, seed=3), None
        noises = draw_step_noise(*SHAPE, seed=3)
        for back, timestep in pairwise([None, *scheduler.timesteps.tolist()]):
            noise_FCHW = next(noises)
            monkeypatch.setattr(
                scheduling_dpm_cogvideox, "randn_tensor", lambda *args, noise=noise_FCHW, **kwargs: noise
            )
            velocity_FCHW = predict(latents_FCHW, timestep)
            latents_FCHW, before = scheduler.step(velocity_FCHW, before, timestep, back, latents_FCHW)
        return latents_FCHW

    return run


def ours(predict: Predict, num_steps: int) -> Tensor:
    return sample_latents(predict, draw_start(*SHAPE, seed=3), draw_step_noise(*SHAPE, seed=3), num_steps)


def test_the_schedule_is_theirs() -> None:
    torch.testing.assert_close(alphas_cumprod(), _scheduler(50).alphas_cumprod, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 10, 25, 30, 50, 1000])
def test_timesteps_are_theirs(num_steps: int) -> None:
    assert trailing_timesteps(num_steps) == _scheduler(num_steps).timesteps.tolist()


@pytest.mark.parametrize("num_steps", [1, 2, 4, 5, 8, 10, 25, 50])
def test_a_run_is_theirs(num_steps: int, predict: Predict, theirs: Run) -> None:
    wanted = theirs(predict, num_steps)
    assert (ours(predict, num_steps) - wanted).norm() / wanted.norm() < 5e-6


def test_where_steps_do_not_divide_1000_only_ours_ends_clean(theirs: Run) -> None:
    """Of a model that always finds zeros. Their last step of six goes from timestep 166 to 0."""
    alphas_T = alphas_cumprod()

    def predict(latents_FCHW: Tensor, timestep: int) -> Tensor:
        return latents_FCHW * (float(alphas_T[timestep]) / (1 - float(alphas_T[timestep]))) ** 0.5

    assert ours(predict, 6).abs().max() < 1e-5
    assert theirs(predict, 6).std() > 0.02


def test_progress_is_told_after_every_step(predict: Predict) -> None:
    told: list[None] = []
    noises = draw_step_noise(*SHAPE, seed=3)
    sample_latents(predict, draw_start(*SHAPE, seed=3), noises, 3, on_step=lambda: told.append(None))
    assert len(told) == 3

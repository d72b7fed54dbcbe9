"""CogVideoX's sampler: its schedule, its steps, its noise. diffusers' own is compared in tests/backends."""

import math

import pytest
import torch

from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod, trailing_timesteps
from flash_pack.flash_modules.flexiact.sampling import (
    TransferConfig,
    denoised_latents,
    dpm_steps,
    draw_start,
    draw_step_noise,
    sample_latents,
)

SHAPE = (3, 4, 5, 6)


def test_the_schedule_begins_at_noise_alone() -> None:
    alphas_T = alphas_cumprod()
    assert alphas_T[999] == 0
    assert alphas_T[0] == pytest.approx(1 - 0.00085, rel=1e-12)
    assert (alphas_T.diff() < 0).all()


def test_timesteps_trail() -> None:
    assert trailing_timesteps(50) == list(range(999, 0, -20))
    assert trailing_timesteps(3) == [999, 666, 332]
    assert trailing_timesteps(1) == [999]


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_that_cannot_be_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"`steps` must lie between 1 and 1000, but it is {steps}"):
        TransferConfig(steps=steps)


def test_a_cfg_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="`cfg` must be a number, but it is nan"):
        TransferConfig(cfg=math.nan)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 7, 10, 30, 50, 1000])
def test_a_step_keeps_clean_latents_clean_and_noise_as_strong_as_it_should_be(num_steps: int) -> None:
    """Of latents sqrt(a) x + sqrt(1-a) noise, with x found, a step makes sqrt(a') x + sqrt(1-a') noise."""
    steps = dpm_steps(num_steps)
    for step, alpha in zip(steps, [step.alpha for step in steps[1:]] + [1.0], strict=True):
        assert step.keep * math.sqrt(step.alpha) + step.clean == pytest.approx(math.sqrt(alpha), abs=1e-12)
        variance = step.keep**2 * (1 - step.alpha) + step.spread**2
        assert variance == pytest.approx(1 - alpha, abs=1e-12)
        assert math.isfinite(step.correction)


def test_the_correction_is_half_the_ratio_of_growths_of_log_snr() -> None:
    steps = dpm_steps(10)
    assert [step.correction > 0 for step in steps] == [False, False, *[True] * 7, False]
    snr = [0.5 * math.log(step.alpha / (1 - step.alpha)) for step in steps[1:5]]
    assert steps[2].correction == pytest.approx((snr[2] - snr[1]) / (snr[1] - snr[0]) / 2)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5])
def test_few_steps_find_what_is_there(num_steps: int) -> None:
    """A model that always knows the clean latents leads to them, whatever the noise."""
    clean_FCHW = torch.randn(SHAPE)
    alphas_T = alphas_cumprod()

    def predict(latents_FCHW: torch.Tensor, timestep: int) -> torch.Tensor:
        alpha = float(alphas_T[timestep])
        return (math.sqrt(alpha) * latents_FCHW - clean_FCHW) / math.sqrt(1 - alpha)

    found = sample_latents(predict, torch.randn(SHAPE), draw_step_noise(*SHAPE, seed=0), num_steps)
    torch.testing.assert_close(found, clean_FCHW, atol=1e-5, rtol=1e-5)


def test_denoised_latents_undo_the_velocity() -> None:
    clean, noise, (_, step, *_) = torch.randn(SHAPE), torch.randn(SHAPE), dpm_steps(4)
    root, rest = math.sqrt(step.alpha), math.sqrt(1 - step.alpha)
    found = denoised_latents(root * noise - rest * clean, root * clean + rest * noise, step)
    torch.testing.assert_close(found, clean)


def test_noise_is_that_of_the_seed_and_the_next_seed_channels_first() -> None:
    frames, channels, height, width = SHAPE
    wanted = torch.randn(channels, frames, height, width, generator=torch.Generator().manual_seed(7))
    assert torch.equal(draw_start(*SHAPE, seed=7), wanted.transpose(0, 1))
    of_steps = draw_step_noise(*SHAPE, seed=6)
    first, second = next(of_steps), next(of_steps)
    assert torch.equal(first, wanted.transpose(0, 1))
    assert not torch.equal(first, second)

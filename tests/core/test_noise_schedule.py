import pytest
from diffusers import DDIMScheduler

from flash_pack.flash_modules.animatediff.noise_schedule import (
    BETA_END,
    BETA_START,
    NUM_TIMESTEPS,
    ddim_timesteps,
)


@pytest.fixture
def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=NUM_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
    )


@pytest.mark.parametrize("num_steps", [1, 2, 7, 16, 25, 30, 50, 999])
def test_ddim_timesteps_are_those_of_diffusers(scheduler: DDIMScheduler, num_steps: int) -> None:
    scheduler.set_timesteps(num_steps)
    assert ddim_timesteps(num_steps) == scheduler.timesteps.tolist()


def test_schedule_is_animatediffs_and_not_stable_diffusions(scheduler: DDIMScheduler) -> None:
    assert (BETA_START, BETA_END, NUM_TIMESTEPS) == (0.00085, 0.012, 1000)
    kept = float(scheduler.alphas_cumprod[-1])
    assert ((1 - kept) / kept) ** 0.5 == pytest.approx(25.1, abs=0.05)  # 14.6 with Stable Diffusion's own


@pytest.mark.parametrize("num_steps", [-1, 0, 1000, 2000])
def test_steps_that_make_no_run_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=r"`steps` must lie between 1 and 999, but it is"):
        ddim_timesteps(num_steps)

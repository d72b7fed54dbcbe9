"""The noise schedule of the small base, as diffusers' scheduler."""

from diffusers import DDIMScheduler

from flash_modules.animatediff.noise_schedule import BETA_END, BETA_START, NUM_TIMESTEPS, Prediction


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

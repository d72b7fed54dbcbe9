"""AnimateDiff's noise schedule, and the timesteps of DDIM on it."""

from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

BETA_START = 0.00085
BETA_END = 0.012
NUM_TIMESTEPS = 1000
"""Betas grow linearly from start to end: "linear" in diffusers, "sqrt_linear" in ComfyUI."""

Prediction = Literal["epsilon", "v_prediction"]
"""What a U-Net predicts, in diffusers' words: the noise, or the velocity (arXiv:2202.00512, appendix D)."""
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
MODELSPEC: dict[Prediction, str] = {"epsilon": "epsilon", "v_prediction": "v"}
"""The same in the words of safetensors' headers (modelspec.prediction_type)."""


@cache
def alphas_cumprod(dtype: torch.dtype) -> Tensor:
    """Products (1000,) of 1 - beta up to each timestep, computed in that dtype, on the CPU."""
    betas_T = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=dtype)
    return (1 - betas_T).cumprod(0)


def ddim_timesteps(num_steps: int) -> list[int]:
    """Timesteps of a DDIM run, noisiest first: a whole stride apart and ending at 1.

    DDIM (arXiv:2010.02502) as Stable Diffusion uses it ("leading" spacing, steps_offset 1). ComfyUI's
    `ddim_uniform` gives the same list where num_steps divides 1000; elsewhere it may run more steps.
    """
    if not 1 <= num_steps < NUM_TIMESTEPS:
        raise ValueError(f"`steps` must lie between 1 and {NUM_TIMESTEPS - 1}, but it is {num_steps}.")
    stride = NUM_TIMESTEPS // num_steps
    return [1 + stride * i for i in reversed(range(num_steps))]

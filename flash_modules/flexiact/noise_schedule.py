"""CogVideoX's noise schedule, and the timesteps of a run on it."""

from functools import cache

import torch
from torch import Tensor

BETA_START = 0.00085
BETA_END = 0.012
NUM_TIMESTEPS = 1000


@cache
def alphas_cumprod() -> Tensor:
    """Products (1000,) of 1 - beta up to each timestep, float64, on the CPU; exactly 0 at timestep 999.

    Betas grow with the square of a line ("scaled_linear" in diffusers). The square roots are then shifted and
    stretched so that the last timestep is noise alone (arXiv:2305.08891, Algorithm 1).
    """
    betas_T = torch.linspace(BETA_START**0.5, BETA_END**0.5, NUM_TIMESTEPS, dtype=torch.float64) ** 2
    roots_T = (1 - betas_T).cumprod(0).sqrt()
    return ((roots_T - roots_T[-1]) * (roots_T[0] / (roots_T[0] - roots_T[-1]))) ** 2


def trailing_timesteps(num_steps: int) -> list[int]:
    """Timesteps of a run, noisiest first: they begin at 999, where there is noise alone.

    "Trailing" spacing of arXiv:2305.08891, Table 2. Raises ValueError for fewer than 1 or more than 1000.
    """
    if not 1 <= num_steps <= NUM_TIMESTEPS:
        raise ValueError(
            f"`steps` must lie between 1 and {NUM_TIMESTEPS}, but it is {num_steps}: 50 is usual."
        )
    return [round(NUM_TIMESTEPS - i * NUM_TIMESTEPS / num_steps) - 1 for i in range(num_steps)]

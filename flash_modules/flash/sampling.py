"""FLASH's settings of sampling."""

import math
from dataclasses import dataclass

from ..animatediff.noise_schedule import ddim_timesteps
from .first_frame import check_num_frames


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

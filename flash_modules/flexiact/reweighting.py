"""Frequency-aware reweighting: early steps, which settle the motion, look harder at the action's tokens."""

import math
from dataclasses import dataclass

from .noise_schedule import NUM_TIMESTEPS


@dataclass(frozen=True, kw_only=True)
class EarlyBoost:
    """What is added to the scores of video queries on action keys (FlexiAct, arXiv:2505.03730).

    The paper's names are alpha, t_l and t_h. Deviation: the released code never adds anything (its pipeline
    overwrites the switch), and hard-codes 700; see `RELEASED`.
    """

    strength: float = 1.0
    """alpha, in units of attention scores; 0 adds nothing, while the tokens stay."""
    full: int = 800
    """t_l: from this timestep up, all of it is added."""
    none: int = 700
    """t_h: from this timestep down, nothing is."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise ValueError(
                f"The early boost is {self.strength}, but it must be 0 (off) or more: 1 is usual."
            )
        if not 0 <= self.none <= self.full <= NUM_TIMESTEPS:
            raise ValueError(
                f"The early boost is full from timestep {self.full} up and ends at {self.none}: both must "
                f"lie between 0 and {NUM_TIMESTEPS}, and the first must not be below the second: 800 and 700 "
                "are usual."
            )

    def at(self, timestep: float) -> float:
        """The score that is added at a timestep: all, then a falling half wave, then nothing."""
        if timestep >= self.full:
            return self.strength
        if timestep <= self.none:
            return 0.0
        phase = math.pi * (self.full - timestep) / (self.full - self.none)
        return self.strength / 2 * (math.cos(phase) + 1)


PAPER = EarlyBoost()
RELEASED = EarlyBoost(strength=0.0)
"""What the released inference code does."""

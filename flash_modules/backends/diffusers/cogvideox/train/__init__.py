"""Learning with FlexiAct on diffusers' CogVideoX."""

from .encode import encode_moments
from .needs import Needs, encoding_bytes, nearest_that_fits, step_needs
from .saving import CHECKPOINTING, SAVINGS, Saving
from .tokens import LearningTokens

__all__ = [
    "CHECKPOINTING",
    "SAVINGS",
    "LearningTokens",
    "Needs",
    "Saving",
    "encode_moments",
    "encoding_bytes",
    "nearest_that_fits",
    "step_needs",
]

"""Learning with FlexiAct on diffusers' CogVideoX."""

from .encode import encode_moments
from .needs import Needs, step_needs
from .tokens import CHECKPOINTING, Checkpointing, LearningTokens

__all__ = [
    "CHECKPOINTING",
    "Checkpointing",
    "LearningTokens",
    "Needs",
    "encode_moments",
    "step_needs",
]

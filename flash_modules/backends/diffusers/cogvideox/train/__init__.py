"""Learning with FlexiAct on diffusers' CogVideoX."""

from .encode import encode_moments
from .tokens import LearningTokens

__all__ = ["LearningTokens", "encode_moments"]

"""Learning with FlexiAct on diffusers' CogVideoX."""

from .encode import encode_moments
from .needs import encoding_bytes
from .tokens import LearningTokens

__all__ = [
    "LearningTokens",
    "encode_moments",
    "encoding_bytes",
]

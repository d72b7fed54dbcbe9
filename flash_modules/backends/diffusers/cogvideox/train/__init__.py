"""Learning with FlexiAct on diffusers' CogVideoX."""

from .encode import encode_moments
from .host import LearningHost
from .needs import encoding_bytes
from .ref_adapter import LearningRefAdapter
from .tokens import LearningTokens

__all__ = [
    "LearningHost",
    "LearningRefAdapter",
    "LearningTokens",
    "encode_moments",
    "encoding_bytes",
]

"""FLASH on ComfyUI's MODEL: on a clone, through ModelPatcher alone."""

from .action import add_action
from .first_frame import add_first_frame
from .motion import LoadedMotion, add_motion, load_motion
from .sampler import sample_video

__all__ = [
    "LoadedMotion",
    "add_action",
    "add_first_frame",
    "add_motion",
    "load_motion",
    "sample_video",
]

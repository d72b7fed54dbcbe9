"""FLASH on ComfyUI's MODEL: on a clone, through ModelPatcher alone."""

from .action import add_action
from .detail import LoadedDetail, detail_decode, load_detail_decoder
from .first_frame import add_first_frame
from .motion import LoadedMotion, add_motion, load_motion
from .sampler import sample_video

__all__ = [
    "LoadedDetail",
    "LoadedMotion",
    "add_action",
    "add_first_frame",
    "add_motion",
    "detail_decode",
    "load_detail_decoder",
    "load_motion",
    "sample_video",
]

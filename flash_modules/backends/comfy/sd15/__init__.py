"""FLASH on ComfyUI's MODEL: on a clone, through ModelPatcher alone."""

from .action import add_action
from .detail import PLAIN_DECODE, LoadedDetail, detail_decode, load_detail_decoder
from .first_frame import add_first_frame
from .first_frame_notes import first_frame_notes
from .links import sampled_video, start_latents
from .motion import LoadedMotion, add_motion, load_motion
from .sampler import sample_video

__all__ = [
    "PLAIN_DECODE",
    "LoadedDetail",
    "LoadedMotion",
    "add_action",
    "add_first_frame",
    "add_motion",
    "detail_decode",
    "first_frame_notes",
    "load_detail_decoder",
    "load_motion",
    "sample_video",
    "sampled_video",
    "start_latents",
]

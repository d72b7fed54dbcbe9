"""FLASH on diffusers' Stable Diffusion 1.5: without ComfyUI."""

from .action import add_action
from .cross_frame import add_cross_frame_attention
from .detail import decode_frames_with_details, make_detail_decoder
from .load.base import Base, BaseFiles, find_base, load_base, load_vae
from .load.encode import decode_frames, encode_picture, encode_prompt
from .motion import AnimatedUNet, add_motion

__all__ = [
    "AnimatedUNet",
    "Base",
    "BaseFiles",
    "add_action",
    "add_cross_frame_attention",
    "add_motion",
    "decode_frames",
    "decode_frames_with_details",
    "encode_picture",
    "encode_prompt",
    "find_base",
    "load_base",
    "load_vae",
    "make_detail_decoder",
]

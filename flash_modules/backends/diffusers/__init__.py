"""FLASH on diffusers' U-Net and VAE: without ComfyUI."""

from .action import add_action
from .base import Base, BaseFiles, find_base, load_base
from .cross_frame import add_cross_frame_attention
from .encode import decode_frames, encode_picture, encode_prompt
from .motion import AnimatedUNet, add_motion
from .sampler import sample_video

__all__ = [
    "AnimatedUNet",
    "Base",
    "BaseFiles",
    "add_action",
    "add_cross_frame_attention",
    "add_motion",
    "decode_frames",
    "encode_picture",
    "encode_prompt",
    "find_base",
    "load_base",
    "sample_video",
]

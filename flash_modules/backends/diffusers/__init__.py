"""FLASH on diffusers' U-Net and VAE: without ComfyUI."""

from .action import add_action
from .alignment import AlignedUNet, add_alignment
from .base import Base, BaseFiles, find_base, load_base, load_vae
from .cross_frame import add_cross_frame_attention
from .detail import decode_frames_with_details, make_detail_decoder
from .encode import decode_frames, encode_picture, encode_prompt
from .motion import AnimatedUNet, add_motion
from .sampler import sample_video
from .trainable import select_trainable

__all__ = [
    "AlignedUNet",
    "AnimatedUNet",
    "Base",
    "BaseFiles",
    "add_action",
    "add_alignment",
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
    "sample_video",
    "select_trainable",
]

"""FlexiAct on diffusers' CogVideoX: without ComfyUI."""

from .guidance import guided_velocity, latents_shape
from .load.base import (
    BaseFiles,
    Shape,
    find_base,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from .load.encode import check_prompts, decode_video, encode_picture, encode_prompt
from .load.tokenizer import read_tokenizer
from .memory import bytes_of, forward_bytes, forward_cost
from .offload import keep_blocks_on_cpu
from .transfer import add_transfer

__all__ = [
    "BaseFiles",
    "Shape",
    "add_transfer",
    "bytes_of",
    "check_prompts",
    "decode_video",
    "encode_picture",
    "encode_prompt",
    "find_base",
    "forward_bytes",
    "forward_cost",
    "guided_velocity",
    "keep_blocks_on_cpu",
    "latents_shape",
    "load_text_encoder",
    "load_transformer",
    "load_vae",
    "read_tokenizer",
]

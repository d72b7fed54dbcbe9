"""CogVideoX's weights by ComfyUI's names, whoever named them."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
"""Of whole checkpoints, of files that ComfyUI saved, and of trainers."""
_RENAMED = (
    (r"transformer_blocks\.", "blocks."),
    (r"\.attn1\.to_out\.0\.", ".attn_out."),
    (r"\.attn1\.to_([qkv])\.", r".\1."),
    (r"\.attn1\.norm_([qk])\.", r".norm_\1."),
    (r"\.ff\.net\.0\.proj\.", ".ff_proj."),
    (r"\.ff\.net\.2\.", ".ff_out."),
    (r"^(time|ofs)_embedding\.linear_([12])\.", r"\1_embedding_linear_\2."),
)
"""diffusers' names on the left; all others are the same in both."""


def core_name(name: str) -> str:
    """ComfyUI's name of a weight, by that name or diffusers' one, with or without a prefix."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for theirs, core in _RENAMED:
        name = re.sub(theirs, core, name)
    return name


def core_names(weights: Mapping[str, T]) -> dict[str, T]:
    return {core_name(name): weight for name, weight in weights.items()}

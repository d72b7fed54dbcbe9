"""A user's picture as a training shows it."""

import comfy.utils
from einops import rearrange
from torch import Tensor


def fitted(image_BHWC: Tensor, shape: tuple[int, int]) -> Tensor:
    """The first picture (1, height, width, 3), cut to the middle and resized."""
    height, width = shape
    image_1CHW = rearrange(image_BHWC[:1, ..., :3].clone(), "1 h w c -> 1 c h w")
    scaled_1CHW = comfy.utils.common_upscale(image_1CHW, width, height, "lanczos", "center")
    return rearrange(scaled_1CHW, "1 c h w -> 1 h w c")

"""Pillow's pictures as ComfyUI's IMAGE."""

from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor


def as_image(pictures: Iterable[Image.Image]) -> Tensor:
    """RGB (F, H, W, 3) in [0, 1] of pictures of one size."""
    return torch.stack([_values(picture.convert("RGB")) for picture in pictures])


def _values(picture: Image.Image) -> Tensor:
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.reshape(picture.height, picture.width, 3).float() / 255

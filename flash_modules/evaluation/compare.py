"""Videos side by side in one, each under its name."""

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .metrics import check_video

_GAP = 8
"""Pixels between two videos."""


def side_by_side(videos: Sequence[Tensor], names: Sequence[str]) -> Tensor:
    """One video (F, H, W, 3) in [0, 1] of several (f, h, w, 3), from left to right, under their names.

    All get the height of the first; one that ends earlier keeps its last frame. Frames are put beside frames,
    whatever their rates. Raises ValueError unless there are two or more, each with a name.
    """
    if len(videos) < 2 or len(videos) != len(names):
        raise ValueError(
            f"There are {len(videos)} videos and {len(names)} names: connect two videos or more, and give "
            "each a name in a line of its own."
        )
    for video_FHWC in videos:
        check_video(video_FHWC)
    height, longest = videos[0].shape[1], max(map(len, videos))
    columns = [_column(video, name, height, longest) for video, name in zip(videos, names, strict=True)]
    gap_FHWC = torch.ones_like(columns[0][:, :, :_GAP])
    parts = [part for column_FHWC in columns for part in (gap_FHWC, column_FHWC)][1:]
    return torch.cat(parts, dim=2)


def _column(video_FHWC: Tensor, name: str, height: int, longest: int) -> Tensor:
    h, w = video_FHWC.shape[1:3]
    width = max(_GAP, round(w * height / h))
    frames_FCHW = rearrange(video_FHWC.float().cpu(), "f h w c -> f c h w")
    if (h, w) != (height, width):
        frames_FCHW = nnf.interpolate(frames_FCHW, size=(height, width), mode="bilinear", antialias=True)
    frames_FHWC = rearrange(frames_FCHW, "f c h w -> f h w c").clamp(0, 1)
    rest_FHWC = frames_FHWC[-1:].expand(longest - len(frames_FHWC), -1, -1, -1)
    label_FHWC = _label(name, width, max(12, height // 16)).expand(longest, -1, -1, -1)
    return torch.cat([label_FHWC, torch.cat([frames_FHWC, rest_FHWC])], dim=1)


def _label(name: str, width: int, size: int) -> Tensor:
    """The name in black on white (1, 2 size, width, 3); what does not fit is cut off."""
    picture = Image.new("RGB", (width, 2 * size), "white")
    ImageDraw.Draw(picture).text((4, size // 2), name, fill="black", font=ImageFont.load_default(size))
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return rearrange(values.float() / 255, "(h w c) -> 1 h w c", h=2 * size, c=3)

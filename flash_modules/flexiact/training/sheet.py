"""What learning will see: each view of the clip, as it is cut to the size that is learned from."""

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from ...files.video_files import as_picture
from .source import Source
from .views import Part

_SHOWN = 7
"""Frames of each view, spread from its first to its last."""
_TILE_HEIGHT, _GAP, _MARGIN, _TEXT = 96, 2, 8, 18
"""Pixels."""


def draw_sheet(source: Source) -> Image.Image:
    """A strip of frames for each view, below a line that says what is taken of its clip."""
    strips = [_strip(video_FCHW) for video_FCHW in source.videos()]
    lines = [line for part in source.parts for line in _lines(part)]
    row = _TEXT + _TILE_HEIGHT + _MARGIN
    sheet = Image.new("RGB", (2 * _MARGIN + strips[0].width, _MARGIN + len(strips) * row), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (strip, line) in enumerate(zip(strips, lines, strict=True)):
        top = _MARGIN + number * row
        draw.text((_MARGIN, top), line, fill="black", font=font)
        sheet.paste(strip, (_MARGIN, top + _TEXT))
    return sheet


def taken_line(part: Part) -> str:
    """What is taken of a clip, in words."""
    clip, indices = part.clip, part.cut.indices
    turned = f", turned by {clip.rotation} degrees" if clip.rotation else ""
    seconds = clip.footage.times[indices[-1]] - clip.footage.times[indices[0]]
    return (
        f"{clip.path.name}: {clip.size[0]}x{clip.size[1]}{turned}, {clip.num_frames} frames, "
        f"{clip.duration:.1f} s -> {len(indices)} frames, from {indices[0]} to {indices[-1]}, "
        f"{seconds:.1f} s: '{clip.caption}'"
    )


def _lines(part: Part) -> list[str]:
    """The clip above its first view, and the number of each other."""
    count = part.config.num_views
    return [taken_line(part), *(f"crop {number} of {count}" for number in range(2, count + 1))]


def _strip(video_FCHW: Tensor) -> Image.Image:
    shown = min(_SHOWN, len(video_FCHW))
    indices = [round(i * (len(video_FCHW) - 1) / (shown - 1)) for i in range(shown)]
    height, width = video_FCHW.shape[-2:]
    tile = _TILE_HEIGHT, max(1, _TILE_HEIGHT * width // height)
    tiles_FCHW = adaptive_avg_pool2d(video_FCHW[torch.tensor(indices)], tile)
    apart_FCHW = pad(tiles_FCHW, (0, _GAP), value=1.0)
    return as_picture(rearrange(apart_FCHW, "f c h w -> h (f w) c"))

"""Drawings for the cards of ComfyUI's templates: what each does, and in which order they are used."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..world.clips import make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion

_SIZE, _BACK, _INK, _DIM = 512, (30, 31, 38), (245, 240, 225), (150, 150, 160)
_CARDS = {
    "Animate-a-picture": (("First Frame", "KSampler"), ""),
    "Animate-a-picture-one-node": (("FLASH Video Sampler",), ""),
    "Learn-an-action": (("Learn Action",), "a few clips"),
    "Perform-a-learned-action": (("Apply Action",), "a few clips"),
    "Learn-from-one-clip": (("Learn Action", "Transfer Action"), "one clip"),
    "Transfer-an-action": (("Transfer Action",), "one clip"),
    "Learn-an-action-on-Wan": (("Learn Action (Wan)",), "a few clips"),
    "Perform-on-Wan": (("Load LoRA",), "a few clips"),
}
"""What stands between picture and video, and what the action is learned from, in the order of use."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `thumbnails`."""
    parser.set_defaults(run=lambda args: write_thumbnails(args.out))
    parser.add_argument("--out", type=Path, default=Path("workflows"), help="folder (default %(default)s)")


def write_thumbnails(folder: Path) -> None:
    """Write a JPEG for each template. They are drawings: no model made them."""
    for number, (name, (boxes, clips)) in enumerate(_CARDS.items(), start=1):
        _thumbnail(number, boxes, clips).save(folder / f"{name}.jpg", quality=85)


def _thumbnail(number: int, boxes: tuple[str, ...], clips: str) -> Image.Image:
    """Top: a picture, and what it goes through; bottom: the video, which begins with the picture."""
    card = Image.new("RGB", (_SIZE, _SIZE), _BACK)
    draw = ImageDraw.Draw(card)
    frames = _frames("soccer shoot" if clips else "arm wave", seed=4 if clips else 1, look=7)
    card.paste(frames[0].resize((190, 190)), (20, 64))
    draw.rectangle((19, 63, 210, 254), outline=_INK, width=3)
    top = 159 - 36 * len(boxes)
    if clips:
        _text(draw, (377, 34), clips, 18, _DIM)
        count = 1 if clips == "one clip" else 2
        for row in range(count):
            clip = _frames("soccer shoot", seed=20 + row, look=30 + row)
            y = 54 + 92 * row + 46 * (2 - count)
            _film(card, clip, (262, y, 492, y + 82))
        top = 244
    for i, box in enumerate(boxes):
        y = top + 72 * i
        draw.rounded_rectangle((262, y, 492, y + 46), 10, fill=(58, 60, 72), outline=_DIM)
        _text(draw, (377, y + 23), box, 20, _INK)
    draw.line((218, 159, 248, 159), fill=_INK, width=4)
    draw.polygon([(244, 152), (244, 166), (254, 159)], fill=_INK)
    draw.line((377, y + 50, 377, 312), fill=_INK, width=4)
    draw.polygon([(370, 308), (384, 308), (377, 318)], fill=_INK)
    _film(card, frames, (20, 322, 492, 472))
    draw.ellipse((20, 476, 52, 508), fill=(214, 120, 40))  # the frontend writes over the top left corner
    _text(draw, (36, 492), str(number), 22, (255, 255, 255))
    _text(draw, (256, 493), "a drawing, not a result", 18, _DIM)
    return card


def _frames(action: str, *, seed: int, look: int) -> list[Image.Image]:
    clip = make_clip(draw_motion(action, seed), draw_look(look), num_frames=8, size=256)
    return [Image.fromarray(frame) for frame in clip.frames_FHW3[::2]]


def _film(card: Image.Image, frames: list[Image.Image], area: tuple[int, int, int, int]) -> None:
    """Frames side by side between rows of holes."""
    draw = ImageDraw.Draw(card)
    left, top, right, bottom = area
    draw.rectangle(area, fill=(10, 10, 12))
    for x in range(left + 6, right - 8, 20):
        for y in (top + 4, bottom - 10):
            draw.rectangle((x, y, x + 8, y + 6), fill=_DIM)
    side = min((right - left) // len(frames), bottom - top - 28)
    gap = (right - left - side * len(frames)) // (len(frames) + 1)
    for i, frame in enumerate(frames):
        card.paste(frame.resize((side - 4, side - 4)), (left + gap + i * (side + gap) + 2, top + 16))


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: tuple[int, ...]
) -> None:
    draw.text(at, text, fill=color, font=ImageFont.load_default(size), anchor="mm")

"""Picture and video files: read a picture and fit it to a size, write frames as a video."""

import math
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from .containers import Unusable, reasons
from .footage import Size
from .pictures import upright
from .provenance import Origin, add_xmp_to_mp4
from .whole import whole

SUFFIXES = (".mp4", ".webp", ".gif")

_MAX_PIXELS = 512 * 512
"""The area that Stable Diffusion 1.5 knows best; a larger picture is made smaller unless a size is given."""

_ANIMATION_FPS = 50


def read_picture(path: Path) -> Image.Image:
    """The picture as a person sees it: turned upright, in RGB. Raises ValueError if it cannot be read."""
    try:
        with reasons():
            return upright(path).convert("RGB")
    except Unusable as error:
        raise ValueError(
            f"{path} cannot be read as a picture ({error}): give a PNG, JPEG or WebP file."
        ) from error


def video_size(picture_size: Size, multiple: int) -> Size:
    """The picture's own size, made smaller to SD 1.5's area if it is larger, and down to whole multiples."""
    shrink = min(1.0, math.sqrt(_MAX_PIXELS / math.prod(picture_size)))
    width, height = (int(side * shrink) // multiple * multiple for side in picture_size)
    if not width or not height:
        raise ValueError(
            f"The picture is {picture_size[0]} x {picture_size[1]}, too small or too narrow for a video: "
            f"use a larger one, or give a size of {multiple} x {multiple} or more."
        )
    return width, height


def check_size(size: Size, multiple: int) -> None:
    """Raise ValueError unless both sides are whole multiples."""
    if any(side <= 0 or side % multiple for side in size):
        near = " x ".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise ValueError(
            f"The size {size[0]} x {size[1]} is not a multiple of {multiple} on both sides: use {near}."
        )


def fit_picture(picture: Image.Image, size: Size) -> Tensor:
    """The picture (1, H, W, 3) in [0, 1], cut to the centre and resized so that it fills the size."""
    fitted = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    values = torch.frombuffer(bytearray(fitted.tobytes()), dtype=torch.uint8)
    return values.reshape(1, size[1], size[0], 3).float() / 255


def check_video_path(path: Path) -> None:
    """Raise ValueError unless a video can be written there."""
    if path.suffix.lower() not in (*SUFFIXES, ""):
        raise ValueError(
            f"{path.name} is no video file that can be written: let its name end in {', '.join(SUFFIXES)}, "
            "or in nothing for a folder of pictures."
        )
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} for the video: make it first.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it, or of a folder to be made.")


def frames_skipped(path: Path, fps: int) -> int:
    """Of so many frames one is written: viewers show GIF and WebP frames below 20 ms for 100.

    1 where all are written. The video lasts as long either way.
    """
    return -(-fps // _ANIMATION_FPS) if path.suffix.lower() in (".gif", ".webp") else 1


def write_video(path: Path, frames: Iterable[Tensor], fps: int, origin: Origin | None = None) -> None:
    """Write frames (H, W, 3) in [0, 1], in the format that the name ends in; without one, a folder of PNGs.

    Whole or not at all. A folder must be a new one. See `frames_skipped`. With an origin the file, or each
    picture, says that it is generated and from what.
    """
    pictures = map(as_picture, frames)
    suffix = path.suffix.lower()
    with whole(path) as draft:
        if not suffix:
            _write_pictures(draft, pictures, origin)
        elif suffix == ".mp4":
            _write_mp4(draft, pictures, fps, origin)
        else:
            _write_animation(draft, pictures, fps, origin)


def as_picture(values_HWC: Tensor) -> Image.Image:
    """A picture of values (H, W, 3) in [0, 1]."""
    return Image.fromarray((values_HWC * 255).round().to("cpu", torch.uint8).numpy())


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture, in the format that the name ends in; whole or not at all."""
    with whole(path) as draft:
        picture.save(draft)


def _write_pictures(folder: Path, pictures: Iterator[Image.Image], origin: Origin | None) -> None:
    folder.mkdir()
    texts = PngInfo()
    if origin:
        texts.add_itxt("XML:com.adobe.xmp", origin.xmp().decode())
    for i, picture in enumerate(pictures):
        picture.save(folder / f"{i:05d}.png", pnginfo=texts)


def _write_mp4(path: Path, pictures: Iterator[Image.Image], fps: int, origin: Origin | None) -> None:
    first = next(pictures)
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        if origin:
            container.metadata["comment"] = origin.comment
        stream = container.add_stream("h264", rate=fps, options={"crf": "18"})
        stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        for picture in chain([first], pictures):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    if origin:
        add_xmp_to_mp4(path, origin.xmp())


def _write_animation(path: Path, pictures: Iterator[Image.Image], fps: int, origin: Origin | None) -> None:
    """Write GIF or WebP; a GIF counts hundredths of a second, so its frames differ by one."""
    step = frames_skipped(path, fps)
    pictures = islice(pictures, 0, None, step)
    if path.suffix.lower() == ".gif":
        pictures = _in_hundredths(pictures, fps / step)
        first = next(pictures)
        told: dict[str, Any] = {"comment": origin.comment} if origin else {}
        first.save(path, save_all=True, append_images=pictures, loop=0, **told)
    else:
        first = next(pictures)
        told = {"xmp": origin.xmp()} if origin else {}
        first.save(
            path,
            save_all=True,
            append_images=pictures,
            duration=1000 * step / fps,
            loop=0,
            quality=90,
            **told,
        )


def _in_hundredths(pictures: Iterator[Image.Image], fps: float) -> Iterator[Image.Image]:
    """Pictures with the milliseconds that each is shown, so that all together last as long as they should."""
    for index, picture in enumerate(pictures):
        start, end = (round(place * 100 / fps) * 10 for place in (index, index + 1))
        picture.info["duration"] = end - start
        yield picture

"""Pictures, folders of them, and animations (GIF, WebP, APNG, AVIF), read through Pillow.

FFmpeg reads no animated WebP, takes a GIF that is cut off for a whole one, and shows its shortest frames
shorter than browsers do.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, ImageSequence

from .containers import Unusable, open_picture, reasons
from .footage import Footage

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff")
ANIMATION_SUFFIXES = (".gif", ".webp", ".apng")

FOLDER_FPS = 24
"""Pictures in a folder say nothing about time, so they are taken for a film's."""

_MOST_PIXELS = 2**31
"""Of all frames of an animation together: 4,000 frames of 800x600, and half a minute of work."""


def frame_paths(folder: Path) -> list[Path]:
    """The pictures of a folder in their order; frame10 comes after frame9."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    return sorted((path for path in found if not path.name.startswith(".")), key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key for sorting names with numbers, upper and lower case alike."""
    parts = re.findall(r"\d+|\D+", path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-2, path.name)]


def upright(path: Path) -> Image.Image:
    """A picture as a person sees it, in RGB, or in RGBA if parts of it are transparent."""
    with open_picture(path) as file:
        ImageOps.exif_transpose(file, in_place=True)
        return _eight_bits(file)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of any mode in RGB or RGBA; deep grey is scaled, where Pillow would cut it off at 255."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        picture = _shallow(picture)
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _shallow(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or of floats, as grey of 8 bits."""
    tags = getattr(picture, "tag_v2", {})
    values_HW = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values_HW).all():
        raise Unusable("its values are not all numbers: save it with 8 or 16 bits")
    if picture.mode.startswith("I;16"):
        white = 2.0 ** tags.get(_BITS, (16,))[0] - 1  # a TIFF may have 12
    elif picture.mode == "I" and tags.get(_FORMAT, (2,))[0] == _UNSIGNED:
        values_HW, white = values_HW % 2.0**32, 2.0**32 - 1  # Pillow reads them as if they had a sign
    else:
        white = _white(values_HW, is_float=picture.mode == "F")
    grey_HW = np.clip(values_HW / white, 0, 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and picture.mode.startswith(
        "I;16"
    ):  # Pillow turns 8 bits alone
        grey_HW = 1 - grey_HW
    return Image.fromarray((grey_HW * 255).round().astype(np.uint8))


_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
"""TIFF 6.0: tags, and values of theirs."""


def _white(values_HW: npt.NDArray[np.float64], *, is_float: bool) -> float:
    """The value that is white, by the largest one: floats are 0 to 1 unless they are far larger."""
    largest = float(values_HW.max())
    if is_float and largest <= 4:  # a little light above white is usual
        return 1.0
    for white in (255.0, 65535.0) if is_float else (65535.0, 2.0**31 - 1):
        if largest <= white:
            return white
    raise Unusable(f"its values reach {largest:.3g}: save it with 8 or 16 bits")


def examine_folder(folder: Path) -> Footage:
    """What a folder of pictures holds; all of them are decoded."""
    paths = frame_paths(folder)
    sizes = {_named(path).size for path in paths}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(sizes)[:2])
        raise Unusable(f"its pictures differ in size ({listed}): a clip needs one size")
    times = tuple(i / FOLDER_FPS for i in range(len(paths)))
    return Footage(times, len(paths) / FOLDER_FPS, next(iter(sizes), (0, 0)), rotation=0)


def folder_pictures(folder: Path, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """The wanted pictures of a folder, one after the other."""
    paths = frame_paths(folder)
    yield from (_named(paths[i]) for i in wanted if i < len(paths))


def moves(path: Path) -> bool:
    """Whether a picture's file holds a moving one."""
    with open_picture(path) as file:
        return bool(getattr(file, "is_animated", False))


def examine_animation(path: Path) -> Footage:
    """What an animation holds; all of it is decoded."""
    times = [0.0]
    with open_picture(path) as file:
        most = _MOST_PIXELS // max(1, file.width * file.height)
        for number, picture in enumerate(ImageSequence.Iterator(file)):
            if number > most:
                raise Unusable(f"it has over {most} frames of {file.width}x{file.height}: cut it shorter")
            picture.load()  # only now a file that is cut off is found, and WebP tells the duration
            if number >= _first(file):
                milliseconds = picture.info.get("duration", 0)
                times.append(
                    times[-1] + (milliseconds if milliseconds > 10 else 100) / 1000
                )  # as browsers do
        return Footage(tuple(times[:-1]), times[-1], file.size, rotation=0)


def animation_pictures(path: Path, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """The wanted frames of an animation, one after the other."""
    with open_picture(path) as file:
        for i in wanted:
            file.seek(i + _first(file))
            yield file.convert("RGBA")


def _first(file: Image.Image) -> int:
    """Where frames begin: an APNG may start with a picture for programs that show no animations."""
    return int(getattr(file, "default_image", False))


def _named(path: Path) -> Image.Image:
    """A picture of a folder; what is wrong with it is said with its name."""
    with reasons(path.name):
        return upright(path)

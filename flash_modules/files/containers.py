"""The one place where pictures and videos are opened: files alone, and of the kinds that we mean.

Pillow starts Ghostscript for an EPS, whatever its name is. FFmpeg follows lists (``ffconcat``, ``.m3u8``) and
names (``concat:``, ``http:``) to other files and to the network. So Pillow is told the formats, and FFmpeg
gets a file that is open already, and the containers that it may take it for.
"""

import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import av
from PIL import Image

from .mp4_boxes import claims_too_much

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
CONTAINERS = ("mov", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "gif", "apng")
"""FFmpeg's names; `mov` is MP4, 3GP and M4V, `mpeg` is MPEG-PS, `asf` is WMV."""

MAX_PIXELS = 8192 * 4320
"""Of a video's frame. Pillow has a limit of its own for pictures, 179 million."""
_MAX_PICTURE_BYTES = 2**29

_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow and PyAV raise at files that are damaged, or made to harm."""


class Unusable(ValueError):
    """Why a file cannot be used, in words for its owner."""


@contextmanager
def reasons(part: str = "") -> Iterator[None]:
    """Give the errors of PyAV and Pillow one type and our words; `part` is the name of what is read of it."""
    prefix = f"{part}: " if part else ""
    try:
        yield
    except Unusable as error:
        raise Unusable(f"{prefix}{error}") from error
    except av.FFmpegError as error:
        raise Unusable(f"it cannot be read as a video ({prefix}{error.strerror})") from error
    except _DAMAGE as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unusable(f"it cannot be read ({prefix}{words})") from error


def check_is_file(path: Path) -> None:
    """Raise Unusable for what is there and is no file: opening a pipe or a device can wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise Unusable("it is a folder")
    if not stat.S_ISREG(mode):
        raise Unusable("it is no file, but a pipe, a socket or a device")


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """A picture or animation, not yet decoded."""
    check_is_file(path)
    if path.stat().st_size > _MAX_PICTURE_BYTES:
        raise Unusable(f"it has {path.stat().st_size / 2**20:.0f} MiB: 512 are the most for a picture")
    Image.init()
    known = [name for name in PICTURE_FORMATS if name in Image.OPEN]  # an old Pillow knows no AVIF
    with Image.open(path, formats=known) as file:
        yield file


def small_picture(data: bytes, sides: int) -> Image.Image:
    """A picture that lies in another file, decoded; only its first frame, if it moves.

    Raises Unusable if it is larger than so many pixels on a side, of no plain kind, or damaged.
    """
    with reasons(), Image.open(BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as file:
        if max(file.size) > sides:
            raise Unusable(f"it has {file.width}x{file.height} pixels: {sides} are the most on a side")
        return file.convert("RGB")


@contextmanager
def open_video(path: Path) -> Iterator[Any]:
    """A container, with nothing decoded yet."""
    options = {"format_whitelist": ",".join(CONTAINERS)}
    try:
        check_is_file(path)
        file = path.open("rb")
    except OSError as error:
        raise Unusable(f"it cannot be read as a video ({error.strerror})") from error
    with file:
        if claims_too_much(file):
            raise Unusable("it is damaged: it claims more frames than it can hold")
        file.seek(0)
        try:
            container = av.open(file, metadata_errors="ignore", container_options=options)
        except (av.ArgumentError, av.InvalidDataError) as error:
            known = isinstance(error, av.ArgumentError)  # FFmpeg knows what it is, and it is not in the list
            if found := _other_kind(path) or (_NO_KIND if known else None):
                raise Unusable(found) from error
            raise
        with container:
            yield container


def video_stream(container: Any) -> Any:
    """The container's video. Raises Unusable if it has none."""
    stream = container.streams.best("video")
    cover = stream is not None and bool(stream.disposition & av.stream.Disposition.attached_pic)
    if stream is None or cover:
        sound = bool(container.streams.audio)
        if cover:
            raise Unusable("it is music with a picture, and no video" if sound else "it is a single picture")
        raise Unusable("it has no video, only sound" if sound else "it has no video")
    if stream.codec_context is None:
        raise Unusable("its video is of a kind that cannot be decoded: convert it to mp4")
    if stream.width * stream.height > MAX_PIXELS:
        raise Unusable(f"its frames have {stream.width}x{stream.height} pixels: 8192x4320 are the most")
    context = stream.codec_context
    if not context.is_open:
        context.thread_type = "AUTO"
        context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}
    return stream


def is_animation(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether Pillow reads it and not PyAV: by what it begins with, else by its name."""
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(12)
    if head.startswith((b"GIF8", b"\x89PNG")) or head[:4] + head[8:] == b"RIFFWEBP":
        return True
    if head[4:8] == b"ftyp":
        return head[8:] in (b"avis", b"avif")
    return path.suffix.lower() in suffixes and not head.startswith((b"\x1aE\xdf\xa3", b"RIFF", b"FLV"))


_NO_KIND = (
    "it is of no kind that is read (mp4, mov, mkv, webm, avi, mpeg, ts, flv, wmv, gif): convert it to mp4"
)


def _other_kind(path: Path) -> str | None:
    """What a file is that people take for a video, or that harms."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith((b"#EXTM3U", b"ffconcat")):
        return "it is a list of other files, and no video: give the videos themselves"
    if head.startswith((b"\0\0\1", b"\0\0\0\1")) and b"\1\xba" not in head[2:5]:
        return (
            "it is a raw stream of pictures, which does not say when they are shown: put it into a container "
            "(ffmpeg -framerate 25 -i FILE -c copy clip.mp4)"
        )
    if head.startswith((b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf1")) or head[:4] + head[8:12] == b"RIFFWAVE":
        return "it has no video, only sound"
    return None

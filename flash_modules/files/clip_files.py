"""Files of clips: when each frame is shown, and the pictures of chosen frames, without the rest of the clip.

Videos are read through PyAV. GIF and WebP are read through Pillow: FFmpeg reads no animated WebP, takes a GIF
that is cut off for a whole one, and shows its shortest frames shorter than browsers do.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image, ImageOps, ImageSequence
from torch import Tensor

Size = tuple[int, int]
"""Width and height."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
ANIMATION_SUFFIXES = (".gif", ".webp")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

FOLDER_FPS = 24
"""Pictures in a folder say nothing about time, so they are taken for a film's."""

_SLACK = 1e-3
"""Seconds that a time may be off by rounding, in containers that count milliseconds."""


@dataclass(frozen=True)
class Footage:
    """What a file holds, as it is shown: upright, with square pixels."""

    times: tuple[float, ...]
    """Seconds at which each frame is first shown."""
    end: float
    """Seconds at which the last frame is taken away."""
    size: Size
    rotation: int
    """Degrees, counterclockwise, by which the stored pictures are turned to stand upright."""


def examine(path: Path) -> Footage:
    """What the file or folder of frames holds. Raises ValueError with the reason why it cannot be used."""
    with _reasons():
        if path.is_dir():
            footage = _examine_folder(path)
        elif not path.stat().st_size:
            raise ValueError("the file is empty (0 bytes)")
        elif path.suffix.lower() in ANIMATION_SUFFIXES:
            footage = _examine_animation(path)
        else:
            footage = _examine_video(path)
    if len(footage.times) < 2:
        raise ValueError(f"a clip needs 2 frames or more, but this has {len(footage.times)}")
    return footage


def check_frames(path: Path, footage: Footage) -> None:
    """Decode all that the file holds. Raises ValueError with the reason if it is damaged inside."""
    if path.is_dir() or path.suffix.lower() in ANIMATION_SUFFIXES:
        return  # `examine` has read all pictures
    with _reasons(), av.open(str(path), metadata_errors="ignore") as container:
        start, count, last = footage.times[0], 0, -math.inf
        for last, frame in _decoded(container, start, start):
            _check_frame(last - start, frame)
            count += 1
    num_frames = len(footage.times)
    if last < footage.times[-1] - _SLACK or count < 0.9 * num_frames:
        raise ValueError(f"it is damaged: {count} of its {num_frames} frames can be read")


def read_frames(path: Path, footage: Footage, indices: Sequence[int], short_side: int | None) -> Tensor:
    """The chosen frames (F, 3, H, W) in [0, 1], made smaller to the short side if they are larger.

    What is transparent becomes white. Raises ValueError with the reason if a frame cannot be read.
    """
    wanted = sorted(set(indices))
    with _reasons():
        pictures = _pictures(path, footage, wanted)
        read = [_upright(picture, footage, short_side) for picture in pictures]
    if len(read) < len(wanted):
        raise ValueError(f"frame {wanted[len(read)]} of {len(footage.times)} cannot be read")
    return torch.stack([read[wanted.index(i)] for i in indices])


def frame_paths(folder: Path) -> list[Path]:
    """The pictures of a folder in their order; frame10 comes after frame9."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    return sorted((path for path in found if not path.name.startswith(".")), key=natural_order)


def natural_order(path: Path) -> list[tuple[int, str]]:
    """A key for sorting names with numbers, upper and lower case alike."""
    parts = re.findall(r"\d+|\D+", path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts] + [(-2, path.name)]


@contextmanager
def _reasons() -> Iterator[None]:
    """Give the errors of PyAV and Pillow one type and our words."""
    try:
        yield
    except av.FFmpegError as error:
        raise ValueError(f"it cannot be read as a video ({error.strerror})") from error
    except (OSError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _examine_folder(folder: Path) -> Footage:
    paths = frame_paths(folder)
    sizes = {_open_picture(path).size for path in paths}
    if len(sizes) > 1:
        listed = " and ".join(f"{width}x{height}" for width, height in sorted(sizes)[:2])
        raise ValueError(f"its pictures differ in size ({listed}): a clip needs one size")
    times = tuple(i / FOLDER_FPS for i in range(len(paths)))
    return Footage(times, len(paths) / FOLDER_FPS, next(iter(sizes), (0, 0)), rotation=0)


def _examine_animation(path: Path) -> Footage:
    times = [0.0]
    with Image.open(path) as file:
        for picture in ImageSequence.Iterator(file):
            picture.load()  # only now a file that is cut off is found, and WebP tells the duration
            milliseconds = picture.info.get("duration", 0)
            times.append(times[-1] + (milliseconds if milliseconds > 10 else 100) / 1000)  # as browsers do
        return Footage(tuple(times[:-1]), times[-1], file.size, rotation=0)


def _examine_video(path: Path) -> Footage:
    pts: list[int] = []
    frame: Any = None
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = _video_stream(container)
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                shown = packet.dts if packet.pts is None else packet.pts
                if shown is None:
                    raise ValueError("it does not say when its frames are shown: convert it to mp4")
                pts.append(shown)
            if frame is None:  # the first picture tells size and rotation; the others are not decoded
                frame = next(iter(packet.decode()), None)
        times = _times(container, stream, pts)
        if _ends_early(container, stream, times):
            raise ValueError(f"the file is cut off: {len(times)} frames are there. Get it again")
    if frame is None or not times:
        raise ValueError("no frame of it can be read")
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    rotation = round(frame.rotation / 90) * 90 % 360
    width, height = round(frame.width * (stream.sample_aspect_ratio or 1)), frame.height
    size = (height, width) if rotation % 180 else (width, height)
    return Footage(times, times[-1] + mean, size, rotation)


def _video_stream(container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError("it has no video, only sound" if container.streams.audio else "it has no video")
    stream.thread_type = "AUTO"
    return stream


def _times(container: Any, stream: Any, pts: list[int]) -> tuple[float, ...]:
    """When frames are shown. AVI has one rate and stores no times, so there frames are counted."""
    if container.format.name == "avi":
        return tuple(float(i / stream.average_rate) for i in range(len(pts)))
    return tuple(float(time * stream.time_base) for time in sorted(set(pts)))


def _ends_early(container: Any, stream: Any, times: Sequence[float]) -> bool:
    """Whether fewer frames are there than the container's header or index promises."""
    if container.format.name == "avi":
        return bool(len(times) < 0.9 * stream.frames)  # which counts those that a camera dropped, too
    if "mov" in container.format.name:
        return any(entry.pos + entry.size > container.size for entry in stream.index_entries)
    promised = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if not promised or not times:
        return False
    hours, minutes, seconds = map(float, promised.groups())
    longest = max((after - before for before, after in pairwise(times)), default=0.0)
    return hours * 3600 + minutes * 60 + seconds > times[-1] + 2 * longest + 0.1


def _open_picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file).convert("RGBA")


def _pictures(path: Path, footage: Footage, wanted: Sequence[int]) -> Iterator[Image.Image]:
    """The wanted frames as they are stored, one after the other."""
    if path.is_dir():
        paths = frame_paths(path)
        yield from (_open_picture(paths[i]) for i in wanted)
    elif path.suffix.lower() in ANIMATION_SUFFIXES:
        with Image.open(path) as file:
            for i in wanted:
                file.seek(i)
                yield file.convert("RGBA")
    else:
        yield from map(_picture, _video_frames(path, footage, wanted))


def _video_frames(path: Path, footage: Footage, wanted: Sequence[int]) -> Iterator[Any]:
    """The frame that is shown at each wanted frame's time. The others are decoded, but not kept."""
    left = [footage.times[i] for i in wanted]
    with av.open(str(path), metadata_errors="ignore") as container:
        for time, frame in _decoded(container, footage.times[0], left[0]):
            if time < left[0] - _SLACK:
                continue
            _check_frame(time - footage.times[0], frame)
            while left and time >= left[0] - _SLACK:  # more than one where a frame is missing
                yield frame
                left.pop(0)
            if not left:
                return


def _check_frame(seconds: float, frame: Any) -> None:
    if frame.is_corrupt:
        raise ValueError(f"it is damaged {seconds:.1f} s after its start")


def _decoded(container: Any, first: float, start: float) -> Iterator[tuple[float, Any]]:
    """Frames with their times, from the last place before the start where decoding can begin."""
    stream = _video_stream(container)
    if container.format.name == "avi":
        for index, frame in enumerate(container.decode(stream)):
            yield float(index / stream.average_rate), frame
        return
    for place in (start, first):
        container.seek(math.floor(place / stream.time_base), stream=stream)
        frames = container.decode(stream)
        frame = next(frames, None)
        if frame and frame.time <= start + _SLACK:  # else the seek went too far, which some containers do
            break
    yield from ((frame.time, frame) for frame in chain([frame] if frame else [], frames))


def _picture(frame: Any) -> Image.Image:
    if any(component.is_alpha for component in frame.format.components):
        return Image.fromarray(frame.to_ndarray(format="rgba"))
    picture: Image.Image = frame.to_image()
    return picture


def _upright(picture: Image.Image, footage: Footage, short_side: int | None) -> Tensor:
    """The picture (3, H, W) in [0, 1], turned, on white, and not larger than asked."""
    turned = picture.rotate(footage.rotation, expand=True) if footage.rotation else picture
    shrink = min(1.0, short_side / min(footage.size)) if short_side else 1.0
    width, height = (max(1, round(side * shrink)) for side in footage.size)
    if turned.mode == "RGBA":
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned).convert("RGB")
    if turned.size != (width, height):
        turned = turned.resize((width, height), Image.Resampling.LANCZOS)
    values = torch.frombuffer(bytearray(turned.tobytes()), dtype=torch.uint8)
    return values.reshape(height, width, 3).permute(2, 0, 1).float() / 255

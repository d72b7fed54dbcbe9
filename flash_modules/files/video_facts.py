"""What a video's container says of it: when frames are shown, and how; whether it is whole."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

from .containers import MAX_PIXELS, Unusable, open_video, video_stream
from .footage import Footage

_MOST_FRAMES = 2**20
_FREE_PIXELS, _PIXELS_PER_BYTE = 2**32, 5000
"""Of all frames together: more than cameras' files ever hold, and seconds of work for a small file."""

_NO_TIMES = "it does not say when its frames are shown: convert it to mp4"


def examine_video(path: Path) -> Footage:
    """What the container says; of its pictures the first one alone is decoded."""
    with open_video(path) as container:
        stream = video_stream(container)
        pts, frame, latest = _demuxed(container, stream)
        times = _times(container, stream, pts)
        if times and _ends_early(container, stream, times, latest):
            raise Unusable(f"the file is cut off: {len(times)} frames are there. Get it again")
    if frame is None or not times:
        raise Unusable("no frame of it can be read")
    return _footage(frame, stream.sample_aspect_ratio or 1, times, path.stat().st_size)


def _demuxed(container: Any, stream: Any) -> tuple[list[int], Any, float]:
    """When frames are shown, in ticks; the first frame; and when the last packet of all is, in s."""
    pts: list[int] = []
    frame, latest = None, 0.0
    for packet in container.demux(*(container.streams if _says_duration(container) else [stream])):
        if packet.pts is not None:
            latest = max(latest, float(packet.pts * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        if packet.size and not packet.is_discard and not _is_hidden(packet, stream):
            pts.append(_ticks(packet))
        if frame is None:  # it tells the size, and how the picture is turned
            frame = _first_of(packet)
        if len(pts) > _MOST_FRAMES:
            raise Unusable(f"it has over {_MOST_FRAMES} frames: cut the action out of it")
    return pts, frame, latest


def frame_time(frame: Any) -> float:
    """Seconds at which a decoded frame is shown."""
    return float(_ticks(frame) * frame.time_base)


def _ticks(shown: Any) -> int:
    """When a packet or frame is shown."""
    ticks: int | None = shown.dts if shown.pts is None else shown.pts
    if ticks is None:
        raise Unusable(_NO_TIMES)
    return ticks


def _is_hidden(packet: Any, stream: Any) -> bool:
    """Whether a packet of VP8 holds a picture that is only there for others to refer to."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & 0x10


def _first_of(packet: Any) -> Any:
    try:
        return next(iter(packet.decode()), None)
    except av.InvalidDataError:  # a recording begins in the middle: it refers to what is not there
        return None


def _footage(frame: Any, aspect: Any, times: tuple[float, ...], num_bytes: int) -> Footage:
    width, height = max(1, round(frame.width * aspect)), frame.height
    if width * height > MAX_PIXELS:
        raise Unusable(f"its pixels are {float(aspect):.3g} times as wide as high: convert it to mp4")
    if len(times) * frame.width * frame.height > _FREE_PIXELS + num_bytes * _PIXELS_PER_BYTE:
        raise Unusable(
            f"it has {len(times)} frames of {frame.width}x{frame.height} in {num_bytes} bytes, which is no "
            "camera's: convert it to mp4"
        )
    mean = (times[-1] - times[0]) / max(1, len(times) - 1)
    rotation, mirrored, notes = _orientation(frame)
    size = (height, width) if rotation % 180 else (width, height)
    return Footage(times, times[-1] + mean, size, rotation, mirrored, notes=notes)


def _orientation(frame: Any) -> tuple[int, bool, tuple[str, ...]]:
    """Degrees counterclockwise, whether mirrored after that, and a note: the whole display matrix."""
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return 0, False, ()
    a, b, _, c, d, *_ = memoryview(matrix).cast("B").cast("i")
    angle = math.degrees(math.atan2(-b, d)) % 360
    rotation = round(angle / 90) * 90
    oblique = abs(angle - rotation) > 1
    notes = (
        (f"it is to be turned by {angle:.0f} degrees: it is turned by {rotation % 360}",) if oblique else ()
    )
    return rotation % 360, a * d < b * c, notes


def _times(container: Any, stream: Any, pts: list[int]) -> tuple[float, ...]:
    """When frames are shown. AVI has one rate and stores no times, so there frames are counted."""
    if container.format.name == "avi":
        return tuple(float(i / avi_rate(stream)) for i in range(len(pts)))
    return tuple(float(time * stream.time_base) for time in sorted(set(pts)))


def avi_rate(stream: Any) -> Any:
    """Frames per second of an AVI."""
    if not stream.average_rate:
        raise Unusable(_NO_TIMES)
    return stream.average_rate


def _says_duration(container: Any) -> bool:
    """Whether the header tells how long all streams last."""
    return container.format.name in ("flv", "asf") and bool(container.duration)


def _ends_early(container: Any, stream: Any, times: Sequence[float], latest: float) -> bool:
    """Whether less is there than the header or index promises; `latest` is the last packet's time."""
    if container.format.name == "avi":
        return bool(len(times) < 0.9 * stream.frames)  # which counts those that a camera dropped, too
    if "mov" in container.format.name:
        size = container.size
        return any(entry.pos + entry.size > size for entry in stream.index_entries)
    if container.format.name == "asf" and not container.duration:
        return bool(_asf_size(Path(container.name)) > container.size)
    promised = 0.0
    if _says_duration(container):
        promised = (container.duration + (container.start_time or 0)) / av.time_base
    elif found := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "")):
        promised, latest = (
            sum(float(part) * 60**i for i, part in enumerate(reversed(found.groups()))),
            times[-1],
        )
    longest = max((after - before for before, after in pairwise(times)), default=0.0)
    return promised > latest + 2 * longest + 0.1


def _asf_size(path: Path) -> int:
    """Bytes that an ASF says it has; FFmpeg does not tell how long it lasts if it has fewer."""
    with path.open("rb") as file:
        _, found, properties = file.read(2**16).partition(_ASF_PROPERTIES)
    return int.from_bytes(properties[24:32], "little") if found else 0


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

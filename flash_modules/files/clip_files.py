"""Files of clips: when each frame is shown, and the pictures of chosen frames, without the rest of the clip.

What a plain decode from the start gives is the reference. Videos are read through PyAV, animations and
folders of pictures through Pillow.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image, ImageOps
from torch import Tensor

from . import colours
from .containers import Unusable, is_animation, open_video, reasons, video_stream
from .footage import SLACK, Footage, Size
from .pictures import (
    ANIMATION_SUFFIXES,
    animation_pictures,
    examine_animation,
    examine_folder,
    folder_pictures,
)
from .video_check import check_frame, checked
from .video_facts import avi_rate, examine_video, frame_time

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp", ".3g2", ".flv", ".f4v", ".wmv", ".asf"),
    *(".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
)
_SEEKABLE = {"mov", "matroska"}
"""Containers with an index. In the others a seek lands anywhere, and frames are decoded from the start."""
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Decoders that keep the transparency, which FFmpeg's own ones drop."""


def examine(path: Path) -> Footage:
    """What the file or folder of frames holds. Raises ValueError with the reason why it cannot be used."""
    with reasons():
        if path.is_dir():
            footage = examine_folder(path)
        elif path.is_file() and not path.stat().st_size:
            raise Unusable("the file is empty (0 bytes)")
        elif _is_animation(path):
            footage = examine_animation(path)
        else:
            footage = examine_video(path)
    _check_enough(footage)
    return footage


def check_frames(path: Path, footage: Footage) -> Footage:
    """Decode all that the file holds, and tell what of the footage can be used, with notes.

    Raises ValueError with the reason if it is damaged inside.
    """
    if path.is_dir() or _is_animation(path):
        return footage  # `examine` has read all pictures
    with reasons(), open_video(path) as container:
        seen = checked(footage, _decoded(container, footage.times[0], footage.times[0]))
    _check_enough(seen)
    return seen


def read_frames(path: Path, footage: Footage, indices: Sequence[int], short_side: int | None) -> Tensor:
    """The chosen frames (F, 3, H, W) in [0, 1], made smaller to the short side if they are larger.

    What is transparent becomes white. Raises ValueError with the reason if a frame cannot be read.
    """
    wanted = sorted(set(indices))
    shrink = min(1.0, short_side / min(footage.size)) if short_side else 1.0
    width, height = (max(1, round(side * shrink)) for side in footage.size)
    with reasons():
        pictures = _pictures(path, footage, wanted, (width, height))
        read = [_upright(picture, footage, (width, height)) for picture in pictures]
    if len(read) < len(wanted):
        raise Unusable(f"frame {wanted[len(read)]} of {len(footage.times)} cannot be read")
    return torch.stack([read[wanted.index(i)] for i in indices])


def _check_enough(footage: Footage) -> None:
    if len(footage.times) < 2:
        raise Unusable(f"a clip needs 2 frames or more, but this has {len(footage.times)}")


def _is_animation(path: Path) -> bool:
    return is_animation(path, ANIMATION_SUFFIXES)


def _pictures(path: Path, footage: Footage, wanted: Sequence[int], size: Size) -> Iterator[Image.Image]:
    """The wanted frames as they are stored, one after the other; HDR ones are scaled to the size at once."""
    if path.is_dir():
        yield from folder_pictures(path, wanted)
    elif _is_animation(path):
        yield from animation_pictures(path, wanted)
    else:
        stored = (size[1], size[0]) if footage.rotation % 180 else size
        for frame in _video_frames(path, footage, wanted):
            if frame.color_trc in colours.NAMES:
                yield _hdr_picture(frame, stored, footage.peak)
            else:
                yield _picture(frame)


def _video_frames(path: Path, footage: Footage, wanted: Sequence[int]) -> Iterator[Any]:
    """The frame that is shown at each wanted frame's time. The others are decoded, but not kept."""
    left = [footage.times[i] for i in wanted]
    first = footage.times[0]
    with open_video(path) as container:
        if footage.interlaced:  # frames are made from their neighbours, so from all that come before
            frames = _deinterlaced(video_stream(container), _decoded(container, first, first))
        else:
            frames = _decoded(container, first, left[0])
        for time, frame in frames:
            if time < left[0] - SLACK:
                continue
            check_frame(time - first, frame)
            while left and time >= left[0] - SLACK:  # more than one where a frame is missing
                yield frame
                left.pop(0)
            if not left:
                return


def _decoded(container: Any, first: float, start: float) -> Iterator[tuple[float, Any]]:
    """Frames with their times, from the last place before the start where decoding can begin.

    Without an index, and where the seek went too far, that is the clip's beginning.
    """
    stream = video_stream(container)
    if start <= first or not _SEEKABLE & set(container.format.name.split(",")):
        yield from _timed(container, stream)
        return
    container.seek(math.floor(start / stream.time_base), stream=stream)
    frames = _timed(container, stream)
    head = next(frames, None)
    if head and head[0] <= start + SLACK and head[1].key_frame:
        yield from chain([head], frames)
        return
    with open_video(Path(container.name)) as again:
        yield from _timed(again, video_stream(again))


def _timed(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """All frames from where the container is, with their times; AVI has no times, and frames are counted.

    Where two have one time, as it happens in MPEG-PS, the second comes half a frame later.
    """
    gap = float(1 / (stream.average_rate or 25))
    last = -math.inf
    for index, frame in enumerate(_frames(container, stream)):
        time = float(index / avi_rate(stream)) if container.format.name == "avi" else frame_time(frame)
        last = last + gap / 2 if last - gap < time <= last + min(SLACK, gap / 4) else time
        yield last, frame


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    context, begun = stream.codec_context, False
    says_alpha = ("alpha_mode", "1") in ((key.lower(), value) for key, value in stream.metadata.items())
    if says_alpha and context.name in _WITH_ALPHA:
        context = av.CodecContext.create(_WITH_ALPHA[context.name], "r")
        context.thread_type = "AUTO"
    for packet in container.demux(stream):
        if not packet.size and packet.dts is not None:
            continue  # an AVI repeats a frame so, and a decoder would take it for the end
        try:
            frames = context.decode(packet)
        except av.InvalidDataError:
            if begun:
                raise
            continue  # a recording begins in the middle: it refers to what is not there
        for frame in frames:
            begun = True
            yield frame


def _deinterlaced(stream: Any, frames: Iterable[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """The same frames with the rows of one moment. The filter holds one back, until it is told the end."""
    graph = av.filter.Graph()
    source, sink = graph.add_buffer(template=stream), graph.add("buffersink")
    bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    times: deque[float] = deque()
    for time, frame in chain(frames, [(math.inf, None)]):
        times.append(time)
        graph.push(frame)
        try:
            while True:
                made = graph.pull()
                yield times.popleft(), made
        except (av.BlockingIOError, av.EOFError):
            continue


def _picture(frame: Any) -> Image.Image:
    if any(component.is_alpha for component in frame.format.components):
        return Image.fromarray(frame.to_ndarray(format="rgba"))
    picture: Image.Image = frame.to_image()
    return picture


def _hdr_picture(frame: Any, size: Size, peak: float) -> Image.Image:
    values_HWC = colours.to_bt709(frame, size, peak)
    return Image.fromarray((values_HWC * 255).round().to(torch.uint8).numpy())


def _upright(picture: Image.Image, footage: Footage, size: Size) -> Tensor:
    """The picture (3, H, W) in [0, 1], turned, on white, and in the size."""
    turned = picture.rotate(footage.rotation, expand=True) if footage.rotation else picture
    if footage.mirrored:
        turned = ImageOps.mirror(turned)
    if turned.mode == "RGBA":
        turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned).convert("RGB")
    if turned.size != size:
        turned = turned.resize(size, Image.Resampling.LANCZOS)
    values = torch.frombuffer(bytearray(turned.tobytes()), dtype=torch.uint8)
    return values.reshape(size[1], size[0], 3).permute(2, 0, 1).float() / 255

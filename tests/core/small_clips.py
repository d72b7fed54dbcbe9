"""Small clips in files, whose frames tell which they are."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image
from torch import Tensor

from flash_pack.flash_modules.files.clip_files import Footage
from flash_pack.flash_modules.training.clips import Clip, find_clips

W, H = 96, 64
CODECS = {
    ".mp4": "h264",
    ".m4v": "h264",
    ".mov": "h264",
    ".mkv": "h264",
    ".webm": "libvpx-vp9",
    ".avi": "mpeg4",
    ".3gp": "h264",
    ".3g2": "h264",
    ".flv": "h264",
    ".f4v": "h264",
    ".wmv": "wmv2",
    ".asf": "msmpeg4v3",
    ".ts": "h264",
    ".mts": "h264",
    ".m2ts": "h264",
    ".mpg": "mpeg2video",
    ".mpeg": "mpeg1video",
    ".vob": "mpeg2video",
}


def pictures(num_frames: int, background: str = "black") -> Iterator[Image.Image]:
    """A red corner at the top left, and a green bar that is 2 pixels further right in each frame."""
    for i in range(num_frames):
        picture = Image.new("RGBA", (W, H), background)
        picture.paste("lime", (16 + 2 * i % 80, 32, 20 + 2 * i % 80, 64))
        picture.paste("red", (0, 0, 16, 16))
        yield picture


def frames_shown(video_FCHW: Tensor) -> list[int]:
    """Which frames of `pictures` these are, for the first 40."""
    green_FW = (video_FCHW[:, 1] - video_FCHW[:, 0] - video_FCHW[:, 2])[:, -16:].mean(dim=1)
    centre_F = (green_FW.relu() * torch.arange(video_FCHW.shape[-1])).sum(1) / green_FW.relu().sum(1)
    return [round((float(centre) * W / video_FCHW.shape[-1] - 17.5) / 2) for centre in centre_F]


def write_video(
    path: Path,
    num_frames: int = 20,
    *,
    fps: int = 25,
    codec: str = "",
    milliseconds: Sequence[int] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    **options: str,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec or CODECS[path.suffix.lower()], rate=fps, options={"g": "6"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = W, H, "yuv420p", 2_000_000
        prepare(stream)
        if milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(pictures(num_frames)):
            frame = av.VideoFrame.from_image(picture.convert("RGB"))
            if milliseconds:
                frame.pts, frame.time_base = milliseconds[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_animation(path: Path, num_frames: int = 20, duration: int | list[int] = 40, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = options.pop("pictures", None) or pictures(num_frames)
    first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, **options)
    return path


def write_folder(path: Path, num_frames: int = 12) -> Path:
    path.mkdir(parents=True)
    for i, picture in enumerate(pictures(num_frames)):
        picture.save(path / f"frame{i}.png")
    return path


def clip(num_frames: int, fps: float, action: str = "jump", name: str = "a.mp4") -> Clip:
    """A clip without a file."""
    times = tuple(5 + i / fps for i in range(num_frames))
    footage = Footage(times, times[-1] + 1 / fps, (W, H), rotation=0)
    return Clip(path=Path(name), action=action, caption=action, footage=footage)


def only_clip(folder: Path) -> Clip:
    (found,) = find_clips([folder]).used
    return found

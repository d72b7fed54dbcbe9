"""Clips of odd kinds, made by the tests themselves: a bar that goes right by two pixels in each frame."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flash_pack.flash_modules.training.clips import Clip, find_clips

W, H = 96, 64


def bars(num_frames: int, width: int = W, height: int = H) -> Iterator[Image.Image]:
    for i in range(num_frames):
        picture = Image.new("RGB", (width, height), "black")
        picture.paste("white", (8 + 2 * i % 80, 0, 12 + 2 * i % 80, height))
        yield picture


def bars_shown(video_FCHW: Tensor) -> list[int]:
    """Which frames of `bars` these are, for the first 40."""
    light_FW = (video_FCHW.mean(dim=(1, 2)) - 0.4).relu()
    centre_F = (light_FW * torch.arange(video_FCHW.shape[-1])).sum(1) / light_FW.sum(1)
    return [round((float(centre) - 9.5) / 2) for centre in centre_F]


def encode(
    path: Path,
    frames: Sequence[Any],
    codec: str = "h264",
    *,
    form: str | None = None,
    pixels: str = "yuv420p",
    prepare: Callable[[Any], object] = lambda stream: None,
    **options: str,
) -> Path:
    """Write pictures, arrays or PyAV's frames at 25 per second; `form` is a container that the name hides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6", **options})
        first = frames[0]
        size = first.size if isinstance(first, Image.Image) else (first.width, first.height)
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        prepare(stream)
        for i, frame in enumerate(frames):
            made = av.VideoFrame.from_image(frame) if isinstance(frame, Image.Image) else frame
            made.pts, made.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return path


def bar_clip(path: Path, num_frames: int = 40, size: tuple[int, int] = (W, H), **options: Any) -> Path:
    return encode(path, list(bars(num_frames, *size)), **options)


def plain_decode(path: Path) -> Tensor:
    """All frames (F, 3, H, W) in [0, 1], from the start to the end."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).movedim(-1, 1).float() / 255


def only_clip(folder: Path) -> Clip:
    (found,) = find_clips([folder]).used
    return found


def refusals(folder: Path) -> dict[str, str]:
    """Why files are skipped, by their names; one clip more is used."""
    bar_clip(folder / "zz-good.mp4", 4)
    found = find_clips([folder])
    assert [clip.path.name for clip in found.used] == ["zz-good.mp4"]
    return {one.path.name: one.reason for one in found.skipped}

"""Videos of a graph side by side: batches of pictures, or ComfyUI's videos."""

from collections.abc import Mapping, Sequence

from comfy_api.latest import Input
from torch import Tensor

from ...evaluation.compare import side_by_side


def compare_videos(videos: Mapping[str, Tensor | Input.Video], names: str) -> Tensor:
    """One video (F, H, W, 3) of all that are connected, in the inputs' order, with a name from each line.

    A video without a line of its own is called by its number. Raises ValueError for less than two videos.
    """
    given = [videos[key] for key in sorted(videos, key=_number) if videos[key] is not None]
    return side_by_side([_frames(video) for video in given], _names(names, len(given)))


def _number(key: str) -> int:
    return int("".join(sign for sign in key if sign.isdigit()) or 0)


def _frames(video: Tensor | Input.Video) -> Tensor:
    frames_FHWC = video if isinstance(video, Tensor) else video.get_components().images
    return frames_FHWC[..., :3]


def _names(text: str, count: int) -> Sequence[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [lines[i] if i < len(lines) and lines[i] else f"video {i + 1}" for i in range(count)]

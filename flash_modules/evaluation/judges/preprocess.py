"""Frames as judges were trained to see them. Videos are FHWC in [0, 1]."""

import torch.nn.functional as nnf
from einops import rearrange
from torch import Tensor

Norm = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Means and spreads of red, green and blue."""
OPENAI: Norm = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Of CLIP's training pictures."""


def filled_square(video_FHWC: Tensor, side: int, mode: str = "bicubic") -> Tensor:
    """Frames (F, 3, side, side) in [0, 1]: the short side brought to `side`, and the centre cut out.

    As Pillow resizes (antialiased, in whole numbers from 0 to 255) and as the libraries of CLIP and of
    torchvision round sides and places.
    """
    frames_FCHW = rearrange(video_FHWC, "f h w c -> f c h w")
    h, w = frames_FCHW.shape[-2:]
    short = min(h, w)
    size = (int(side * h / short), int(side * w / short))
    resized_FCHW = nnf.interpolate(frames_FCHW, size=size, mode=mode, antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    whole_FCHW = (resized_FCHW.clamp(0, 1) * 255).round() / 255
    return whole_FCHW[..., top : top + side, left : left + side]


def normalised(frames_FCHW: Tensor, norm: Norm) -> Tensor:
    """(value - mean) / spread of each colour."""
    mean_C, spread_C = (frames_FCHW.new_tensor(values) for values in norm)
    return (frames_FCHW - rearrange(mean_C, "c -> c 1 1")) / rearrange(spread_C, "c -> c 1 1")


def evenly(num_frames: int, wanted: int) -> list[int]:
    """Indices of so many frames from the first to the last; frames come twice where there are too few."""
    return [round(i * (num_frames - 1) / max(1, wanted - 1)) for i in range(wanted)]

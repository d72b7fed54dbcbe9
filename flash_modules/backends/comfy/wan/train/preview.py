"""What a training would see of the clips, before there is one."""

from collections.abc import Sequence
from pathlib import Path

import torch
from comfy_api.latest import Input
from torch import Tensor

from .....training.sampling import long_enough
from ...learning.clip_sheet import clip_sheet
from ...video_clips import given_clips
from .options import WanOptions


def preview(
    folder: Path,
    prompt: str,
    width: int,
    height: int,
    options: WanOptions | None = None,
    videos: Sequence[Input.Video] = (),
    texts: Sequence[str] = (),
    twins: Sequence[Input.Video] = (),
) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) in [0, 1] of clips above their twins, and a line for each clip."""
    options = options or WanOptions()
    config = options.config(width, height, steps=1, device=torch.device("cpu"))
    clips = long_enough(given_clips(folder, prompt, videos, texts, twins), config.sampling)
    return clip_sheet(clips, config.sampling, config.method.augment, options.seed, exam=options.exam)

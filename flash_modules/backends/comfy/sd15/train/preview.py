"""What a training would see of the clips, before there is one."""

from collections.abc import Sequence
from pathlib import Path

from comfy_api.latest import Input
from torch import Tensor

from .....flash.augment import AugmentConfig
from .....flash.training.method import PRESETS
from ...learning.clip_sheet import clip_sheet
from ...video_clips import given_clips
from .options import TrainingOptions


def preview(
    folder: Path,
    prompt: str,
    preset: str,
    options: TrainingOptions | None = None,
    videos: Sequence[Input.Video] = (),
    texts: Sequence[str] = (),
    twins: Sequence[Input.Video] = (),
) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) in [0, 1] of clips above their twins, and a line for each clip."""
    options = options or TrainingOptions()
    clips = given_clips(folder, prompt, videos, texts, twins)
    augment = AugmentConfig(size=options.size or PRESETS[preset])
    return clip_sheet(clips, options.sampling, augment, options.seed, exam=options.exam)

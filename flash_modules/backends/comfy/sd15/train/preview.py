"""What a training would see of the clips: the command line's `preview`, on a node."""

from collections.abc import Sequence
from pathlib import Path

from comfy_api.latest import Input
from torch import Tensor

from .....flash.augment import AugmentConfig
from .....flash.training.exam import draw_aside
from .....flash.training.method import PRESETS
from .....flash.training.preview import preview_clips
from ...pictures import as_image
from ...video_clips import given_clips
from .options import TrainingOptions


def preview(
    folder: Path,
    prompt: str,
    preset: str,
    options: TrainingOptions | None = None,
    videos: Sequence[Input.Video] = (),
    texts: Sequence[str] = (),
) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) in [0, 1] of clips above their twins, and a line for each clip."""
    options = options or TrainingOptions()
    lines: list[str] = []
    clips = given_clips(folder, prompt, videos, texts)
    sheet = preview_clips(
        clips,
        options.sampling,
        AugmentConfig(size=options.size or PRESETS[preset]),
        seed=options.seed,
        on_line=lines.append,
        aside=draw_aside(clips.used, options.seed) if options.exam else (),
    )
    return as_image([sheet]), "\n".join(lines)

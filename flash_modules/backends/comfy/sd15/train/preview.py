"""What a training would see of the clips: the command line's `preview`, on a node."""

from pathlib import Path

import torch
from torch import Tensor

from .....flash.augment import AugmentConfig
from .....flash.training.method import PRESETS
from .....flash.training.preview import preview_clips
from .....training.clips import find_clips
from .options import TrainingOptions


def preview_folder(
    folder: Path, prompt: str, preset: str, options: TrainingOptions | None
) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) in [0, 1] of clips above their twins, and a line for each clip."""
    options = options or TrainingOptions()
    lines: list[str] = []
    sheet = preview_clips(
        find_clips([folder], [prompt] if prompt.strip() else []),
        options.sampling,
        AugmentConfig(size=options.size or PRESETS[preset]),
        seed=options.seed,
        on_line=lines.append,
    )
    values = torch.frombuffer(bytearray(sheet.convert("RGB").tobytes()), dtype=torch.uint8)
    picture_1HWC = values.reshape(1, sheet.height, sheet.width, 3).float() / 255
    return picture_1HWC, "\n".join(lines)

"""What a training would see of the clips: the command line's `preview`, on a node."""

from torch import Tensor

from ....flash.augment import AugmentConfig
from ....flash.training.exam import draw_aside
from ....flash.training.preview import preview_clips
from ....training.clips import Clips
from ....training.sampling import SamplingConfig
from ..pictures import as_image


def clip_sheet(
    clips: Clips, sampling: SamplingConfig, augment: AugmentConfig, seed: int, *, exam: bool
) -> tuple[Tensor, str]:
    """A picture (1, H, W, 3) in [0, 1] of clips above their twins, and a line for each clip."""
    lines: list[str] = []
    sheet = preview_clips(
        clips,
        sampling,
        augment,
        seed=seed,
        on_line=lines.append,
        aside=draw_aside(clips.used, seed) if exam else (),
    )
    return as_image([sheet]), "\n".join(lines)

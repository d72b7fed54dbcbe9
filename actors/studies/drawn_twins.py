"""Twins that no augmentation of pictures reaches: the same motion, drawn in another look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from flash_modules.flash.augment import crop
from flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig, AnyHost
from flash_modules.flash.training.latent_pool import LatentPool
from flash_modules.training.clips import Clip
from flash_modules.training.sampling import seeded

from ..world.clips import clip_video, make_clip
from ..world.looks import draw_look
from ..world.motion import Motion


class DrawnTwinPool(LatentPool):
    """A pool whose twins show what their clips' motions look like with other people in other places."""

    def __init__(self, motions: Sequence[Motion], clips: Sequence[Clip], *args: Any, **more: Any) -> None:
        """The motions are those of the clips, which are square and taken whole."""
        super().__init__(clips, *args, **more)
        self.motions = motions

    def draw_videos(self, number: int, turn: int) -> tuple[Tensor, ...]:
        """The clip, and its motion in a look that the small base has seen, cropped alike."""
        drawn = self.draw(number, turn)
        look = torch.randint(2**31, (), generator=seeded(self.seed, "look", number, turn))
        motion = self.motions[number // self.config.per_clip]
        twin_FHWC = clip_video(make_clip(motion, draw_look(int(look)), size=self.augment.size))
        twin_FCHW = rearrange(twin_FHWC[list(drawn.taken.indices)], "f h w c -> f c h w")
        videos = (drawn.video_FCHW, twin_FCHW)
        return tuple(crop(video_FCHW, self.augment.shape, drawn.augmentation) for video_FCHW in videos)


class DrawnTwinTraining(ActionTraining[AnyHost]):
    """The product's training, on such pairs."""

    def __init__(
        self,
        host: AnyHost,
        clips: Sequence[Clip],
        config: ActionTrainingConfig,
        motions: Sequence[Motion],
    ) -> None:
        super().__init__(host, clips, config)
        self.motions = motions

    def pool(self, folder: Path) -> LatentPool:
        config = self.config
        return DrawnTwinPool(
            self.motions,
            self.clips,
            config.pool,
            config.sampling,
            config.method.augment,
            self.host.encoder,
            folder,
            twins=True,
            seed=config.seed,
        )

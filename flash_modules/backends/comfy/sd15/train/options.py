"""Settings of an action's training on Stable Diffusion 1.5 as the nodes offer them."""

from dataclasses import dataclass, replace

import torch

from .....flash.augment import AugmentConfig
from .....flash.motion_alignment import AlignmentConfig
from .....flash.training.action_training import ActionTrainingConfig
from .....flash.training.latent_pool import PoolConfig
from .....flash.training.method import PRESETS, MethodConfig, Trainable
from ...learning.action_options import ActionOptions
from ...learning.options import dtype_of


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(ActionOptions):
    """Further ones of this base."""

    after_attention: bool = AlignmentConfig.after_attention
    trainable: Trainable = MethodConfig.trainable
    relative_to_still: bool = AlignmentConfig.relative_to_still
    first_frame_only: bool = AlignmentConfig.first_frame_only

    @property
    def alignment(self) -> AlignmentConfig:
        """What twins take of their originals."""
        return replace(
            super().alignment,
            after_attention=self.after_attention,
            relative_to_still=self.relative_to_still,
            first_frame_only=self.first_frame_only,
        )

    def config(self, preset: str, steps: int, device: torch.device) -> ActionTrainingConfig:
        """The training that these describe. Raises ValueError, in a sentence, for what cannot be."""
        augment = AugmentConfig(size=self.size or PRESETS[preset])
        return ActionTrainingConfig(
            method=replace(self.method(augment), trainable=self.trainable),
            sampling=self.sampling,
            pool=PoolConfig(per_clip=self.pool),
            loop=self.loop(steps),
            text_drop=self.text_drop,
            exam=self.exam_or_none,
            seed=self.seed,
            checkpointing=self.checkpointing,
            dtype=dtype_of(self.dtype, device),
        )

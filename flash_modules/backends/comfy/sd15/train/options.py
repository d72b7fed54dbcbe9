"""Settings of an action's training as the nodes offer them."""

from dataclasses import dataclass, replace

import torch

from .....flash.augment import AugmentConfig
from .....flash.motion_alignment import AlignmentConfig
from .....flash.sampling import SamplerConfig
from .....flash.training.action_training import ActionTrainingConfig, Checkpointing
from .....flash.training.exam import ExamConfig
from .....flash.training.latent_pool import PoolConfig
from .....flash.training.method import PRESETS, MethodConfig, Trainable
from .....flash.training.noise_law import TimestepConfig
from ...learning.options import RunOptions, dtype_of

_METHOD, _ALIGNMENT = MethodConfig(), AlignmentConfig()


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RunOptions):
    """All that most users need not touch; the same defaults as on the command line."""

    twins: bool = _METHOD.twins
    tau: float = _ALIGNMENT.tau
    p: float = _ALIGNMENT.p
    after_attention: bool = _ALIGNMENT.after_attention
    exclude_first: bool = _ALIGNMENT.exclude_first
    alpha: float = _METHOD.timesteps.alpha
    text_drop: float = ActionTrainingConfig.text_drop
    trainable: Trainable = _METHOD.trainable
    relative_to_still: bool = _ALIGNMENT.relative_to_still
    first_frame_only: bool = _ALIGNMENT.first_frame_only
    detach_source: bool = _ALIGNMENT.detach_source
    shared_noise: bool = _METHOD.shared_noise
    checkpointing: Checkpointing = ActionTrainingConfig.checkpointing
    pool: int = PoolConfig.per_clip
    exam: bool = True
    sample_steps: int = SamplerConfig.steps
    """Steps in which a sample video is made."""

    def config(self, preset: str, steps: int, device: torch.device) -> ActionTrainingConfig:
        """The training that these describe. Raises ValueError, in a sentence, for what cannot be."""
        method = MethodConfig(
            twins=self.twins,
            augment=AugmentConfig(size=self.size or PRESETS[preset]),
            alignment=replace(
                _ALIGNMENT,
                tau=self.tau,
                p=self.p,
                after_attention=self.after_attention,
                exclude_first=self.exclude_first,
                relative_to_still=self.relative_to_still,
                first_frame_only=self.first_frame_only,
                detach_source=self.detach_source,
            ),
            timesteps=TimestepConfig(alpha=self.alpha),
            shared_noise=self.shared_noise,
            trainable=self.trainable,
        )
        return ActionTrainingConfig(
            method=method,
            sampling=self.sampling,
            pool=PoolConfig(per_clip=self.pool),
            loop=self.loop(steps),
            text_drop=self.text_drop,
            exam=ExamConfig() if self.exam else None,
            seed=self.seed,
            checkpointing=self.checkpointing,
            dtype=dtype_of(self.dtype, device),
        )

"""Settings of an action's training as the nodes offer them, on whatever base."""

from dataclasses import dataclass, replace
from typing import ClassVar

from ....flash.augment import AugmentConfig
from ....flash.motion_alignment import AlignmentConfig
from ....flash.sampling import SamplerConfig
from ....flash.training.exam import ExamConfig
from ....flash.training.latent_pool import PoolConfig
from ....flash.training.method import MethodConfig
from ....flash.training.noise_law import TimestepConfig
from ....flash.training.settings import ActionTrainingConfig, Checkpointing
from .options import RunOptions

_METHOD, _ALIGNMENT = MethodConfig(), AlignmentConfig()


@dataclass(frozen=True, kw_only=True)
class ActionOptions(RunOptions):
    """All that most users need not touch; the same defaults as on the command line."""

    twins: bool = _METHOD.twins
    tau: float = _ALIGNMENT.tau
    p: float = _ALIGNMENT.p
    exclude_first: bool = _ALIGNMENT.exclude_first
    alpha: float = _METHOD.timesteps.alpha
    text_drop: float = ActionTrainingConfig.text_drop
    detach_source: bool = _ALIGNMENT.detach_source
    shared_noise: bool = _METHOD.shared_noise
    checkpointing: Checkpointing = ActionTrainingConfig.checkpointing
    pool: int = PoolConfig.per_clip
    exam: bool = True
    sample_steps: int = SamplerConfig.steps
    """Steps in which a sample video is made."""

    exam_config: ClassVar[ExamConfig] = ExamConfig()
    sample_fps: ClassVar[int] = 8
    """Frames per second of the samples."""

    @property
    def sampler(self) -> SamplerConfig:
        """How samples are made."""
        return SamplerConfig(num_frames=self.frames, steps=self.sample_steps)

    @property
    def alignment(self) -> AlignmentConfig:
        """What twins take of their originals."""
        return replace(
            _ALIGNMENT,
            tau=self.tau,
            p=self.p,
            exclude_first=self.exclude_first,
            detach_source=self.detach_source,
        )

    @property
    def timesteps(self) -> TimestepConfig:
        """How often which noise is learned from."""
        return TimestepConfig(alpha=self.alpha)

    def method(self, augment: AugmentConfig) -> MethodConfig:
        """The method for videos of this shape. Raises ValueError, in a sentence, for what cannot be."""
        return MethodConfig(
            twins=self.twins,
            augment=augment,
            alignment=self.alignment,
            timesteps=self.timesteps,
            shared_noise=self.shared_noise,
        )

    @property
    def exam_or_none(self) -> ExamConfig | None:
        """The exam, if there is one."""
        return self.exam_config if self.exam else None

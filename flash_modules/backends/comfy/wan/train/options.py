"""Settings of learning an action on Wan 2.2, as the nodes offer them."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from .....flash.augment import AugmentConfig
from .....flash.sampling import SamplerConfig
from .....flash.training.action_training import ActionTrainingConfig
from .....flash.training.exam import ExamConfig
from .....flash.training.latent_pool import PoolConfig
from .....flash.training.noise_law import Law, TimestepConfig
from .....flash.training.settings import Checkpointing
from .....training.sampling import SamplingConfig
from ...learning.action_options import ActionOptions
from ...learning.options import dtype_of
from .encode import STEP
from .host import LoRAConfig

FPS = 24
"""Frames a second that the base was trained with."""
PIXELS = 32
"""Of which width and height are multiples: 16 of the VAE's, 2 of the transformer's."""
_CFG = 5.0
"""Of core's template for this base."""
_LORA = LoRAConfig()


@dataclass(frozen=True, kw_only=True)
class WanOptions(ActionOptions):
    """All that most users need not touch."""

    frames: int = 49
    exclude_first: bool = True
    """The first latent is of one frame, which is clean, and the others are of four."""
    learning_rate: float = 1e-4
    checkpointing: Checkpointing = "all"
    """So that 832 x 480 fits into 16 GiB."""
    law: Law = "shifted"
    rank: int = _LORA.rank
    text: bool = _LORA.text
    pool: int = 8
    sample_steps: int = 20
    licence: str = ""
    """Of the file, as its header tells it."""

    exam_config: ClassVar[ExamConfig] = ExamConfig(timesteps=(700, 900))
    sample_fps: ClassVar[int] = FPS

    @property
    def sampling(self) -> SamplingConfig:
        """In real time, as many frames as the VAE takes."""
        return SamplingConfig(num_frames=self.frames, fps=float(FPS), frames_step=STEP)

    @property
    def sampler(self) -> SamplerConfig:
        """How samples are made."""
        return replace(super().sampler, cfg=_CFG)

    @property
    def timesteps(self) -> TimestepConfig:
        """How often which noise is learned from."""
        return TimestepConfig(alpha=self.alpha, law=self.law)

    @property
    def lora(self) -> LoRAConfig:
        """What learns."""
        return LoRAConfig(rank=self.rank, text=self.text)

    def config(self, width: int, height: int, steps: int, device: torch.device) -> ActionTrainingConfig:
        """The training that these describe. Raises ValueError, in a sentence, for what cannot be."""
        for name, pixels in (("width", width), ("height", height)):
            if pixels % PIXELS:
                raise ValueError(
                    f"`{name}` must be a multiple of {PIXELS} pixels with this base, but it is {pixels}: "
                    f"take {max(1, round(pixels / PIXELS)) * PIXELS}."
                )
        return ActionTrainingConfig(
            method=self.method(AugmentConfig(size=height, width=None if width == height else width)),
            sampling=self.sampling,
            pool=PoolConfig(per_clip=self.pool),
            loop=self.loop(steps),
            text_drop=self.text_drop,
            exam=self.exam_or_none,
            seed=self.seed,
            checkpointing=self.checkpointing,
            dtype=dtype_of(self.dtype, device),
        )

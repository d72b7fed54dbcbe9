"""Settings that every training has, as the nodes offer them."""

from dataclasses import dataclass

import torch

from ....training.loop import LoopConfig
from ....training.sampling import SamplingConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
DTYPE_NAMES = ("auto", *DTYPES)
"""`auto` is bf16 on CUDA, else fp32, as on the command line."""

_LOOP = LoopConfig()


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Of every training, whatever it learns."""

    size: int = 0
    """Pixels of the square that is trained on; 0 = the preset's."""
    frames: int = SamplingConfig.num_frames
    """Taken of a clip at a time."""
    stride: int = SamplingConfig.stride or 0
    """0 = every clip is spread from end to end."""
    learning_rate: float = _LOOP.learning_rate
    cooldown: float = _LOOP.cooldown
    accumulation: int = _LOOP.accumulation
    save_steps: int = _LOOP.save_steps
    keep: int = _LOOP.keep
    seed: int = 0
    dtype: str = "auto"
    sample_every: int = 500
    """Steps of the training between two samples."""

    @property
    def sampling(self) -> SamplingConfig:
        """How frames are taken from a clip."""
        return SamplingConfig(num_frames=self.frames, stride=self.stride or None)

    def loop(self, steps: int) -> LoopConfig:
        """The loop of so many steps."""
        return LoopConfig(
            steps=steps,
            learning_rate=self.learning_rate,
            cooldown=self.cooldown,
            accumulation=self.accumulation,
            save_steps=self.save_steps,
            keep=self.keep,
        )


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """One of DTYPE_NAMES as numbers for this device."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]

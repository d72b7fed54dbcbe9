"""What every run is known by, whatever it learns: these may not change while it goes on."""

from typing import Any, Protocol

import torch

from .loop import LoopConfig
from .sampling import SamplingConfig


class MachineConfig(Protocol):
    """What every training is configured by."""

    @property
    def sampling(self) -> SamplingConfig: ...

    @property
    def loop(self) -> LoopConfig: ...

    @property
    def seed(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...


def machine_settings(config: MachineConfig, micro_batches: int) -> dict[str, Any]:
    """The settings of a training whose steps have so many micro-batches, in all processes."""
    return {
        "sampling": config.sampling.settings,
        **config.loop.settings,
        "parts_of_a_step": micro_batches,
        "seed": config.seed,
        "dtype": str(config.dtype).removeprefix("torch."),
    }

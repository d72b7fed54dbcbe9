"""What runs again in the backward pass, to save memory."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import checkpoint

from ....flash.training.settings import CHECKPOINTING, Checkpointing


@dataclass(frozen=True)
class Again:
    """One of CHECKPOINTING, as the layers of a model use it. Raises ValueError for others."""

    checkpointing: Checkpointing

    def __post_init__(self) -> None:
        if self.checkpointing not in CHECKPOINTING:
            raise ValueError(
                f"`checkpointing` must be one of {', '.join(CHECKPOINTING)}, but it is "
                f"'{self.checkpointing}'."
            )

    def motion(self, run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """`run(*args)`, again in the backward pass where motion layers are checkpointed."""
        return _again(run, *args) if self.checkpointing != "none" else run(*args)

    def motion_in_block(self, run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """The same for motion layers inside of blocks: where those run again, it is not for a third time."""
        return _again(run, *args) if self.checkpointing == "motion" else run(*args)

    def block(self, run: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """The same where blocks of the base are."""
        return _again(run, *args) if self.checkpointing == "all" else run(*args)


def _again(run: Callable[..., Tensor], *args: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return run(*args)
    return checkpoint.checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)

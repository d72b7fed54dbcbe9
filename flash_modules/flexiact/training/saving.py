"""What saves memory while something learns: blocks that run again, inputs and weights that wait elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

Checkpointing = Literal["none", "blocks", "cpu"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""Nothing; blocks run again in the backward pass, so that their inputs alone are kept; and those inputs wait
in the computer's memory."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What saves memory. The result is the same."""

    checkpointing: Checkpointing = "blocks"
    offload: bool = False
    """Whether the weights of blocks wait in the computer's memory, and each block's are copied whenever it
    runs: twice a step."""

    def __post_init__(self) -> None:
        if self.offload and self.checkpointing == "none":
            raise ValueError(
                "Blocks whose weights wait must run again, or all copies are kept: give --checkpointing "
                "blocks or cpu with --offload blocks."
            )

    @property
    def run(self) -> Callable[..., Any]:
        """How a block runs where nothing learns: ``run(block, video, *args)``."""
        return _with_copies if self.offload else _as_it_is

    @property
    def run_again(self) -> Callable[..., Any] | None:
        """How a block runs where something learns, as `run`; None is as usual."""
        if self.checkpointing == "none":
            return None
        again = _run_again if self.checkpointing == "blocks" else _run_again_from_cpu
        return partial(again, self.run)


USUAL = Saving()
SAVINGS = (
    Saving(checkpointing="none"),
    USUAL,
    Saving(checkpointing="cpu"),
    Saving(checkpointing="blocks", offload=True),
    Saving(checkpointing="cpu", offload=True),
)
"""From what needs the most on the device to what needs the least."""


def copied(values: Tensor, device: torch.device) -> Tensor:
    """The same values on a device."""
    return values.to(device, non_blocking=True)


def _as_it_is(block: nn.Module, *args: Any) -> Any:
    return block(*args)


def _with_copies(block: nn.Module, video: Tensor, *args: Any) -> Any:
    """A block with copies of its weights where the video is, which go once its backward is done."""
    weights = {name: copied(weight.detach(), video.device) for name, weight in block.named_parameters()}
    return functional_call(block, weights, (video, *args))


def _run_again(run: Callable[..., Any], block: nn.Module, *args: Any) -> Any:
    return checkpoint(run, block, *args, use_reentrant=False)


def _run_again_from_cpu(run: Callable[..., Any], block: nn.Module, video: Tensor, *args: Any) -> Any:
    """What this kind of checkpoint keeps goes by the hooks of autograd, if something before it learns."""
    with save_on_cpu():
        return checkpoint(
            run,
            block,
            video if video.requires_grad else video.detach().requires_grad_(),
            *args,
            use_reentrant=True,
        )

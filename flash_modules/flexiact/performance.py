"""Which actions a video performs, and how: what both hosts put into their model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .action_file import TransferAction
from .reweighting import PAPER, EarlyBoost


@dataclass(frozen=True, kw_only=True)
class Performance:
    """An action, and how strongly it is performed."""

    action: TransferAction
    strength: float = 1.0
    """Factor of the softmax weight of the action's keys, for all queries: 1 as learned, 0 no action.

    Not in the paper, which has the early boost alone.
    """
    boost: EarlyBoost = PAPER

    def __post_init__(self) -> None:
        if not 0 <= self.strength < math.inf:
            raise ValueError(
                f"The strength of the action '{self.action.name}' is {self.strength}, but it must be 0 (off) "
                "or more: 1 is as learned."
            )


def performed(performances: Sequence[Performance]) -> list[Performance]:
    """Those that do anything: strength 0 is no action at all."""
    return [performance for performance in performances if performance.strength > 0]


def joined_tokens(performances: Sequence[Performance], layer: int) -> Tensor:
    """Tokens (M, C) of all actions together, for a layer."""
    return torch.cat([performance.action.tokens_LMC[layer] for performance in performances])


def key_biases(performances: Sequence[Performance], timestep: float) -> Tensor | None:
    """What is added to the scores on the joined tokens at a timestep, (M, 2) in fp32; None if nothing is.

    Column 0 is for all queries, log(strength); column 1 for those of the video only, the early boost.
    """
    rows = [(math.log(each.strength), each.boost.at(timestep)) for each in performances]
    if not any(any(row) for row in rows):
        return None
    sizes = [each.action.tokens_LMC.shape[1] for each in performances]
    return torch.cat([torch.tensor(row).expand(size, 2) for row, size in zip(rows, sizes, strict=True)])

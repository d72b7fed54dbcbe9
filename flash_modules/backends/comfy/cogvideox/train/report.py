"""What learning from one clip has brought, as the node gives it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .....flexiact.action_file import TransferAction, read_transfer_action
from .....flexiact.training.sheet import taken_line
from .....training.losses import read_losses
from ...folders import ACTIONS, RUNS
from ...learning.report import LossMap, how_it_ended, loss_map, losses_in_words
from ...learning.show import as_output, newest_sample, read_frames
from .plan import OneClipPlan


@dataclass(frozen=True, kw_only=True)
class LearnedFromOneClip:
    """What the node gives."""

    action: TransferAction
    losses: LossMap
    images: Tensor | ExecutionBlocker
    """The latest sample, before one what is taken of the clip; where neither is, what stands behind it does
    not run."""
    report: str
    ui: dict[str, Any]


def report(plan: OneClipPlan, step: int) -> LearnedFromOneClip:
    """What the run has learned in so many steps, from its files."""
    losses = read_losses(plan.folder / "loss.csv")
    sample = newest_sample(plan.lesson.run_name)
    return LearnedFromOneClip(
        action=read_transfer_action(plan.result.path),
        losses=loss_map(losses),
        images=ExecutionBlocker(None) if sample is None else read_frames(sample),
        report="\n".join(_lines(plan, step, losses)),
        ui=as_output(sample),
    )


def _lines(plan: OneClipPlan, step: int, losses: Sequence[float]) -> Iterator[str]:
    yield f"Learned {how_it_ended(step, plan.config.loop.steps)} from one clip."
    yield from map(taken_line, plan.source.parts)
    yield from plan.source.notes
    yield losses_in_words(losses)
    yield f"Action: {plan.result.path.name} in models/{ACTIONS}; the run itself in models/{RUNS}."

"""What an action's training has brought, as its node tells it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ....training.exam import Marks, read_marks, verdict
from ....training.losses import read_losses
from .action_plan import ActionPlan
from .report import LossMap, how_it_ended, left_out, loss_map, losses_in_words
from .show import as_output, newest_sample, read_frames


@dataclass(frozen=True, kw_only=True)
class Report:
    """What every node gives that learned an action, beside the action."""

    losses: LossMap
    exam: LossMap | ExecutionBlocker
    """Errors of what it never saw; without exams, what stands behind it does not run."""
    images: Tensor | ExecutionBlocker
    """The latest sample; without one, what stands behind it does not run."""
    text: str
    ui: dict[str, Any]


def report(plan: ActionPlan[Any], step: int, sampled: bool, end: Sequence[str]) -> Report:
    """What the run has learned in so many steps, from its files; `end` has the last lines of the text.

    `sampled` says whether there may be a sample of this run.
    """
    losses = read_losses(plan.folder / "loss.csv")
    marks = read_marks(plan.folder)
    sample = newest_sample(plan.lesson.run_name) if sampled else None
    return Report(
        losses=loss_map(losses),
        exam=loss_map([one.kept_aside for one in marks]) if marks else ExecutionBlocker(None),
        images=ExecutionBlocker(None) if sample is None else read_frames(sample),
        text="\n".join([*_lines(plan, step, losses, marks), *end]),
        ui=as_output(sample),
    )


def _lines(
    plan: ActionPlan[Any], step: int, losses: Sequence[float], marks: Sequence[Marks]
) -> Iterator[str]:
    config = plan.config
    height, width = config.method.augment.shape
    yield (
        f"Learned {how_it_ended(step, config.loop.steps)} from {_clips(plan)}, "
        f"{config.sampling.num_frames} frames of {width} x {height}."
    )
    yield losses_in_words(losses)
    yield from verdict(marks)
    if config.start:
        yield f"It began with the action {config.start.name}."
    for prompt in dict.fromkeys(clip.caption for clip in plan.clips.used):
        yield f"Prompt: {prompt}"
    for clip in plan.kept_aside:
        yield f"Kept aside for the exam: {clip.path.name}"
    yield from left_out(plan.clips)


def _clips(plan: ActionPlan[Any]) -> str:
    count = len(plan.clips.used) - len(plan.kept_aside)
    twins = " and given twins" if plan.lesson.twins else ""
    return f"{count} clips{twins}" if count > 1 else f"1 clip{twins}"

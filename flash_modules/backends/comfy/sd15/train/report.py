"""What a training has brought, as the node gives it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .....flash.action_file import Action, read_action
from .....training.exam import Marks, read_marks, verdict
from .....training.losses import read_losses
from ...folders import ACTIONS, RUNS
from ...learning.report import LossMap, how_it_ended, left_out, loss_map, losses_in_words
from ...learning.show import as_output, newest_sample, read_frames
from .plan import Plan


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the node gives."""

    action: Action
    losses: LossMap
    exam: LossMap | ExecutionBlocker
    """Errors of what it never saw; without exams, what stands behind it does not run."""
    images: Tensor | ExecutionBlocker
    """The latest sample; without one, what stands behind it does not run."""
    report: str
    ui: dict[str, Any]


def report(plan: Plan, step: int) -> Learned:
    """What the run has learned in so many steps, from its files."""
    losses = read_losses(plan.folder / "loss.csv")
    marks = read_marks(plan.folder)
    sample = newest_sample(plan.lesson.run_name) if plan.lesson.image is not None else None
    return Learned(
        action=read_action(plan.result.path),
        losses=loss_map(losses),
        exam=loss_map([one.kept_aside for one in marks]) if marks else ExecutionBlocker(None),
        images=ExecutionBlocker(None) if sample is None else read_frames(sample),
        report="\n".join(_lines(plan, step, losses, marks)),
        ui=as_output(sample),
    )


def _lines(plan: Plan, step: int, losses: Sequence[float], marks: Sequence[Marks]) -> Iterator[str]:
    config = plan.config
    size = config.method.augment.size
    yield (
        f"Learned {how_it_ended(step, config.loop.steps)} from {_clips(plan)}, "
        f"{config.sampling.num_frames} frames of {size} x {size}."
    )
    yield losses_in_words(losses)
    yield from verdict(marks)
    if plan.config.start:
        yield f"It began with the action {plan.config.start.name}."
    for prompt in dict.fromkeys(clip.caption for clip in plan.clips.used):
        yield f"Prompt: {prompt}"
    for clip in plan.kept_aside:
        yield f"Kept aside for the exam: {clip.path.name}"
    yield from left_out(plan.clips)
    yield f"Action: {plan.result.path.name} in models/{ACTIONS}; the run itself in models/{RUNS}."


def _clips(plan: Plan) -> str:
    count = len(plan.clips.used) - len(plan.kept_aside)
    return f"{count} clips" if count > 1 else "1 clip"

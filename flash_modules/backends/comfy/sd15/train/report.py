"""What a training has brought, as the node gives it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image, ImageSequence
from torch import Tensor

from .....flash.action_file import Action, read_action
from .....training.exam import Marks, read_marks, verdict
from .....training.losses import read_losses
from ...folders import ACTIONS, RUNS
from .plan import Plan
from .show import as_output, newest_sample

LossMap = dict[str, list[float]]
"""As core's Plot Loss Graph takes them."""


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
        losses=_loss_map(losses),
        exam=_loss_map([one.kept_aside for one in marks]) if marks else ExecutionBlocker(None),
        images=ExecutionBlocker(None) if sample is None else _read_frames(sample),
        report="\n".join(_lines(plan, step, losses, marks)),
        ui=as_output(sample),
    )


def _loss_map(losses: list[float]) -> LossMap:
    """Plot Loss Graph divides by the range of the losses, so there must be one."""
    return {"loss": losses if len(set(losses)) > 1 else [*losses, 0.0]}


def _lines(plan: Plan, step: int, losses: Sequence[float], marks: Sequence[Marks]) -> Iterator[str]:
    config, loop = plan.config, plan.config.loop
    size = config.method.augment.size
    ended = "" if step >= loop.steps else " (stopped; queue it again to go on)"
    yield (
        f"Learned {step} of {loop.steps} steps{ended} from {_clips(plan)}, "
        f"{config.sampling.num_frames} frames of {size} x {size}."
    )
    part = max(1, len(losses) // 10)
    first, last = (sum(part_) / len(part_) for part_ in (losses[:part], losses[-part:]))
    yield f"Loss: {first:.4f} in the first tenth, {last:.4f} in the last."
    yield from verdict(marks)
    if plan.config.start:
        yield f"It began with the action {plan.config.start.name}."
    for prompt in dict.fromkeys(clip.caption for clip in plan.clips.used):
        yield f"Prompt: {prompt}"
    for clip in plan.kept_aside:
        yield f"Kept aside for the exam: {clip.path.name}"
    for skipped in plan.clips.skipped:
        yield f"Left out {skipped.path.name}: {skipped.reason}"
    yield f"Action: {plan.result.path.name} in models/{ACTIONS}; the run itself in models/{RUNS}."


def _read_frames(path: Path) -> Tensor:
    """The pictures (F, H, W, 3) in [0, 1] of an animated file."""
    with Image.open(path) as file:
        pictures = [picture.convert("RGB") for picture in ImageSequence.Iterator(file)]
    values = [torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8) for one in pictures]
    width, height = pictures[0].size
    return torch.stack(values).reshape(len(values), height, width, 3).float() / 255


def _clips(plan: Plan) -> str:
    count = len(plan.clips.used) - len(plan.kept_aside)
    return f"{count} clips" if count > 1 else "1 clip"

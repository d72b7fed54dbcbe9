"""To begin a training with an action that was learned before, and not with the plain motion module."""

from typing import Protocol

import torch
from torch import Tensor

from ...files.tensor_file import fingerprint, some
from ..action_file import Action, KnownMotion, Source, plan_action
from .action_training import ActionTraining, Host


class MotionHost(Host, Protocol):
    """A host whose motion is AnimateDiff's."""

    @property
    def motion(self) -> KnownMotion:
        """The motion module as it was before it learns."""


def source_of(action: Action) -> Source:
    """What an action is known by, in the settings and the file of a run that begins with it."""
    return Source(name=action.name, sha256=fingerprint({**action.motion, **action.kv_diffs}))


@torch.no_grad()
def begin_with(training: ActionTraining[MotionHost], action: Action) -> list[str]:
    """Put what the action has learned into the weights that learn; the result is what the user should know.

    What the run learns is still told as the difference to the base. Raises ValueError if the action does not
    fit, or holds weights that would not learn.
    """
    weights = training.host.weights
    motion = training.host.motion
    keys_values = {name: weight for name, weight in training.before.items() if name not in motion.tensors}
    plan = plan_action(action, 1.0, motion=motion, keys_values=lambda: keys_values)
    diffs: dict[str, Tensor] = {**plan.motion_diffs, **plan.kv_diffs}
    fixed = [name for name, diff in diffs.items() if name not in weights and bool(diff.any())]
    if fixed:
        raise ValueError(
            f"The action '{action.name}' changed weights that would not learn here ({some(fixed)}): train "
            "the whole motion_module, or begin without it."
        )
    for name in diffs.keys() & weights.keys():
        weights[name].add_(diffs[name].to(weights[name]))
    return list(plan.warnings)

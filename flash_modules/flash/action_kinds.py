"""An action as another kind of file: with a whole motion module, or with what was learned alone."""

from dataclasses import replace

import torch

from ..animatediff.motion_file import MotionWeights
from ..animatediff.motion_layout import POSITIONS
from .action_file import TRAINED, Action, check_module


def as_standalone(action: Action, motion: MotionWeights) -> Action:
    """A compact action with all of its motion module, as `train --standalone` writes it.

    Raises ValueError if it was trained on another motion module.
    """
    check_module(action, motion.sha256)
    whole = {**motion.tensors, **action.motion}
    tensors = {name: tensor.to("cpu", torch.float16) for name, tensor in whole.items()}
    return replace(action, kind="standalone", motion=tensors)


def as_compact(action: Action) -> Action:
    """A standalone action without what training left as it was.

    Raises ValueError if its header does not say what was trained.
    """
    trained = TRAINED.get(action.header.get("flash.trainable", ""))
    if trained is None:
        raise ValueError(
            f"The header of the action '{action.name}' does not say what was trained, so nothing can be left "
            "out: save it as it is."
        )
    kept = {n: t for n, t in action.motion.items() if trained in n and not n.endswith(POSITIONS)}
    return replace(action, kind="compact", motion=kept)

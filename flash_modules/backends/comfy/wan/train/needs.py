"""Whether learning on Wan 2.2 fits into the memory that there is, in words of its nodes."""

from functools import partial

from .....flash.training.action_training import CHECKPOINTING, ActionTraining, Host
from .....flash.training.needs import Remedy, gib, training_memory


def remedy_for(training: ActionTraining[Host]) -> Remedy:
    """What to change so that it fits, in words of the nodes."""
    return partial(_remedy, training)


def _remedy(training: ActionTraining[Host], free: float) -> str:
    now = training.config.checkpointing
    for checkpointing in CHECKPOINTING[CHECKPOINTING.index(now) + 1 :]:
        needed = training_memory(training, checkpointing=checkpointing)
        if needed <= free:
            return f"set `checkpointing` to {checkpointing}, which needs about {gib(needed)}"
    least = training_memory(training, checkpointing=CHECKPOINTING[-1])
    return (
        f"even `checkpointing` {CHECKPOINTING[-1]} needs about {gib(least)} with these videos, so take a "
        "smaller `width` and `height`, fewer `frames`, or an fp8 version of the base"
    )

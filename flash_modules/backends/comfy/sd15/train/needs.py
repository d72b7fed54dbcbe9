"""Whether a training fits into the memory that there is, said before its first step."""

from functools import partial

from .....flash.training.action_training import ActionTraining, Host
from .....flash.training.detail_needs import detail_memory, details_that_fit
from .....flash.training.detail_training import DetailHost, DetailTraining
from .....flash.training.needs import (
    Remedy,
    check_fits,
    flops_per_second,
    gib,
    memory_was_full,
    nearest_that_fits,
)
from ...learning.needs import KEPT, free_memory, in_words


def remedy_for(training: ActionTraining[Host]) -> Remedy:
    """What to change so that it fits, in words of the nodes."""
    return partial(_remedy, training)


def _remedy(training: ActionTraining[Host], free: float) -> str:
    """The settings nearest to the present ones that fit, in words of the nodes."""
    config, near = training.config, nearest_that_fits(training, free)
    if not near.fits:
        return (
            f"even `size` {near.size} with `checkpointing` {near.checkpointing} needs about "
            f"{gib(near.needed)}, so take fewer `frames` in Training Options, or another device"
        )
    other = near.checkpointing != config.checkpointing
    changes = [f"`size` to {near.size}"] if near.size != config.method.augment.size else []
    changes += [f"`checkpointing` to {near.checkpointing}"] if other else []
    return f"in Training Options set {' and '.join(changes)}, which needs about {gib(near.needed)}"


def detail_needs(training: DetailTraining[DetailHost]) -> str:
    """What a run takes, in memory and time. Raises ValueError, with settings that fit, if it is too much."""
    host, loop, needed = training.host, training.config.loop, detail_memory(training)
    check_fits(
        needed, free_memory(host.device, host.num_bytes), host.device, partial(_detail_remedy, training)
    )
    speed = flops_per_second(host.device, training.config.dtype)
    seconds = training.cost().flops * loop.accumulation / speed
    return in_words(needed, seconds, loop.steps)


def out_of_detail_memory(training: DetailTraining[DetailHost]) -> ValueError:
    """What to say when memory ran out all the same."""
    remedy = partial(_detail_remedy, training)
    return ValueError(f"{memory_was_full(detail_memory(training), training.host.device, remedy)} {KEPT}")


def _detail_remedy(training: DetailTraining[DetailHost], free: float) -> str:
    config, near = training.config, details_that_fit(training, free)
    if not near.fits:
        return (
            f"even `size` {near.size} with `frames_per_step` {near.frames} needs about {gib(near.needed)}, "
            "so take a smaller `size`, or another device"
        )
    changes = [f"`size` to {near.size}"] if near.size != config.size else []
    changes += [f"`frames_per_step` to {near.frames}"] if near.frames != config.frames else []
    return f"set {' and '.join(changes)}, which needs about {gib(near.needed)}"

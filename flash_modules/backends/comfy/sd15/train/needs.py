"""Whether a training fits into the memory that there is, said before its first step."""

import comfy.model_management

from .....flash.training.action_training import ActionTraining, Host
from .....flash.training.needs import (
    check_fits,
    flops_per_second,
    gib,
    memory_was_full,
    nearest_that_fits,
    seconds_per_step,
    training_memory,
)
from .show import long_time, short_time


def check_memory(training: ActionTraining[Host]) -> None:
    """Raise ValueError, with settings that fit, if training takes more memory than is free."""
    check_fits(training, _free_memory(training), _remedy)


def estimate(training: ActionTraining[Host], steps: int) -> str:
    """What so many steps will take, in words."""
    speed = flops_per_second(training.host.device, training.config.dtype)
    seconds = seconds_per_step(training, speed)
    return (
        f"About {gib(training_memory(training))} of memory, {short_time(seconds)} a step and "
        f"{long_time(steps * seconds)} for {steps} steps"
    )


def out_of_memory(training: ActionTraining[Host]) -> ValueError:
    """What to say when memory ran out all the same."""
    return ValueError(f"{memory_was_full(training, _remedy)} The last whole step is kept.")


def used_memory(training: ActionTraining[Host]) -> str:
    """What ComfyUI's process takes, or its part of the GPU, in words."""
    device = training.host.device
    total = comfy.model_management.get_total_memory(device)
    return f"{gib(total - comfy.model_management.get_free_memory(device))} of {gib(total)} in use"


def _free_memory(training: ActionTraining[Host]) -> float:
    """What is free, with what the training's own weights take already."""
    return comfy.model_management.get_free_memory(training.host.device) + training.host.num_bytes


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

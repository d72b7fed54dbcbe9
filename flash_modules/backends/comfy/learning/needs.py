"""Memory and time of a training: checked, and in words."""

import comfy.model_management
import torch

from ....flash.training.action_training import ActionTraining, Host
from ....flash.training.needs import (
    Remedy,
    check_fits,
    flops_per_second,
    gib,
    memory_was_full,
    seconds_per_step,
    training_memory,
)
from .show import long_time, short_time

KEPT = "The last whole step is kept."
"""Where memory ran out."""


def in_words(needed: float, seconds: float, steps: int) -> str:
    """What so many steps will take."""
    return (
        f"About {gib(needed)} of memory, {short_time(seconds)} a step and {long_time(steps * seconds)} "
        f"for {steps} steps"
    )


def used_memory(device: torch.device) -> str:
    """What ComfyUI's process takes, or its part of the GPU, in words."""
    total = comfy.model_management.get_total_memory(device)
    return f"{gib(total - comfy.model_management.get_free_memory(device))} of {gib(total)} in use"


def free_memory(device: torch.device, own_bytes: int) -> float:
    """Bytes that are free, with what the training's own weights take already."""
    return comfy.model_management.get_free_memory(device) + own_bytes


def check_memory(training: ActionTraining[Host], remedy: Remedy) -> None:
    """Raise ValueError, with the remedy, if an action's training takes more memory than is free."""
    host, needed = training.host, training_memory(training)
    check_fits(needed, free_memory(host.device, host.num_bytes), host.device, remedy)


def estimate(training: ActionTraining[Host], steps: int) -> str:
    """What so many steps will take, in words."""
    speed = flops_per_second(training.host.device, training.config.dtype)
    return in_words(training_memory(training), seconds_per_step(training, speed), steps)


def out_of_memory(training: ActionTraining[Host], remedy: Remedy) -> ValueError:
    """What to say when memory ran out all the same."""
    return ValueError(f"{memory_was_full(training_memory(training), training.host.device, remedy)} {KEPT}")

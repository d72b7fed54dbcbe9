"""The memory and the time that training an action takes, and the settings that need less."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .action_training import CHECKPOINTING, ActionTraining, Checkpointing, Host
from .method import PRESETS


def training_memory(
    training: ActionTraining[Host], size: int | None = None, checkpointing: Checkpointing | None = None
) -> int:
    """Bytes that training takes at its peak, as configured or with another size or checkpointing."""
    learning = sum(weight.numel() * weight.element_size() for weight in training.host.weights.values())
    averages, optimizer_step = 2 * learning, 2 * learning  # AdamW's; gradients and as much again
    step = training.cost(size, checkpointing).peak_bytes
    return training.host.num_bytes + averages + max(step, optimizer_step)


def frugal_settings(training: ActionTraining[Host]) -> Iterator[tuple[int, Checkpointing]]:
    """Size and checkpointing as configured, then those that need less and less; smaller sizes come last."""
    config = training.config
    size = config.method.augment.size
    stronger = CHECKPOINTING[CHECKPOINTING.index(config.checkpointing) :]
    smaller = sorted((pixels for pixels in PRESETS.values() if pixels < size), reverse=True)
    yield from ((pixels, checkpointing) for pixels in (size, *smaller) for checkpointing in stronger)


@dataclass(frozen=True)
class Frugal:
    """Settings of a training, and the bytes that it takes with them."""

    size: int
    checkpointing: Checkpointing
    needed: int
    fits: bool


Remedy = Callable[[ActionTraining[Host], float], str]
"""``remedy(training, free) -> words``: what to change so that it fits into so many bytes."""


def nearest_that_fits(training: ActionTraining[Host], free: float) -> Frugal:
    """The settings nearest to the present ones that fit, else those that need the least."""
    for size, checkpointing in frugal_settings(training):
        needed = training_memory(training, size, checkpointing)
        if needed <= free:
            return Frugal(size, checkpointing, needed, fits=True)
    return Frugal(size, checkpointing, needed, fits=False)


def check_fits(training: ActionTraining[Host], free: float, remedy: Remedy) -> None:
    """Raise ValueError, with the remedy, if training takes more than so many bytes."""
    needed = training_memory(training)
    if needed > free:
        raise ValueError(
            f"Training needs about {gib(needed)} of memory, but {gib(free)} are free on "
            f"{training.host.device}: {remedy(training, free)}."
        )


def memory_was_full(training: ActionTraining[Host], remedy: Remedy) -> str:
    """What to say when memory ran out all the same."""
    needed = training_memory(training)
    return (
        f"The memory of {training.host.device} is full; about {gib(needed)} were expected to do, but other "
        f"programs take some too. Close them, or: {remedy(training, 0.9 * needed)}."
    )


def gib(num_bytes: float) -> str:
    """Bytes in words."""
    return f"{num_bytes / 2**30:.1f} GiB"


def seconds_per_step(training: ActionTraining[Host], speed: float) -> float:
    """Time of a step at so many multiplications and additions a second."""
    return training.cost().flops * training.config.loop.accumulation / speed


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Half of what a matrix product reaches here, measured for a moment: what a step may reach."""
    size = 4096 if device.type == "cuda" else 768
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return size**3 / best

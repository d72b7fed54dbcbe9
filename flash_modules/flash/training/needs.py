"""The memory and the time that a training takes, and the settings of an action's that need less."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .action_training import CHECKPOINTING, ActionTraining, Checkpointing, Host
from .method import PRESETS


def peak_memory(num_bytes: int, weights: Iterable[Tensor], step_bytes: int) -> int:
    """Bytes that a training takes at its peak: of all weights, of AdamW's averages, of a step.

    `num_bytes` are those of all weights on the device, `weights` those that learn, `step_bytes` what a
    micro-batch takes on top of them, gradients included.
    """
    learning = sum(weight.numel() * weight.element_size() for weight in weights)
    averages, optimizer_step = 2 * learning, 2 * learning  # AdamW's; gradients and as much again
    return num_bytes + averages + max(step_bytes, optimizer_step)


def training_memory(
    training: ActionTraining[Host], size: int | None = None, checkpointing: Checkpointing | None = None
) -> int:
    """Bytes that training takes at its peak, as configured or with another size or checkpointing."""
    step_bytes = training.cost(size, checkpointing).peak_bytes
    return peak_memory(training.host.num_bytes, training.host.weights.values(), step_bytes)


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


Remedy = Callable[[float], str]
"""``remedy(free) -> words``: what to change so that a training fits into so many bytes."""


def nearest_that_fits(training: ActionTraining[Host], free: float) -> Frugal:
    """The settings nearest to the present ones that fit, else those that need the least."""
    for size, checkpointing in frugal_settings(training):
        needed = training_memory(training, size, checkpointing)
        if needed <= free:
            return Frugal(size, checkpointing, needed, fits=True)
    return Frugal(size, checkpointing, needed, fits=False)


def check_fits(needed: int, free: float, device: torch.device, remedy: Remedy) -> None:
    """Raise ValueError, with the remedy, if more bytes are needed than are free."""
    if needed > free:
        raise ValueError(
            f"Training needs about {gib(needed)} of memory, but {gib(free)} are free on {device}: "
            f"{remedy(free)}."
        )


def memory_was_full(needed: int, device: torch.device, remedy: Remedy) -> str:
    """What to say when memory ran out though so many bytes should have done."""
    return (
        f"The memory of {device} is full; about {gib(needed)} were expected to do, but other programs take "
        f"some too. Close them, or: {remedy(0.9 * needed)}."
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

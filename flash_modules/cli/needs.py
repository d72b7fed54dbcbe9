"""What a run of training needs, and which settings need less."""

import math
import time
from collections.abc import Iterator

import torch

from ..flash.training.action_training import ActionTraining, Host
from ..flash.training.needs import frugal_settings, training_memory
from .device import free_memory


def needs(training: ActionTraining[Host]) -> Iterator[str]:
    """What a run takes: weights that learn, work, memory and time."""
    config, cost = training.config, training.cost()
    learning = sum(weight.numel() for weight in training.host.weights.values())
    speed = _flops_per_second(training.host.device, config.dtype)
    seconds = cost.flops * config.loop.accumulation / speed
    size = config.method.augment.size
    yield f"{len(training.host.weights)} weight tensors learn, {learning / 1e6:.1f} million numbers."
    yield (
        f"A pair of {config.sampling.num_frames} frames of {size} x {size} takes "
        f"{cost.flops / 1e12:.3g} TFLOP."
    )
    yield (
        f"Memory: about {_gib(training_memory(training))} at checkpointing {config.checkpointing}; "
        f"{_gib(free_memory(training.host.device))} are free."
    )
    yield (
        f"Time: about {seconds:.2f} s a step and {config.loop.steps * seconds / 3600:.1f} h for "
        f"{config.loop.steps} steps, if it reaches half of what this device's matrix products do "
        f"({2 * speed / 1e12:.2f} TFLOP/s)."
    )


def check_memory(training: ActionTraining[Host]) -> None:
    """Raise ValueError, with settings that fit, if training takes more memory than is free."""
    free = free_memory(training.host.device)
    needed = training_memory(training)
    if needed > free:
        raise ValueError(
            f"Training needs about {_gib(needed)} of memory, but {_gib(free)} are free on "
            f"{training.host.device}: {_remedy(training, free)}."
        )


def out_of_memory(training: ActionTraining[Host]) -> ValueError:
    """What to say when memory ran out all the same."""
    needed = training_memory(training)
    return ValueError(
        f"The memory of {training.host.device} is full; about {_gib(needed)} were expected to do, but other "
        f"programs take some too. Close them, or: {_remedy(training, 0.9 * needed)}. The last checkpoint is "
        "kept, and so is what was encoded until then."
    )


def _remedy(training: ActionTraining[Host], free: float) -> str:
    """The settings nearest to the present ones that fit."""
    config, needed = training.config, 0
    for size, checkpointing in frugal_settings(training):
        needed = training_memory(training, size, checkpointing)
        if needed <= free:
            flags = [f"--size {size}"] if size != config.method.augment.size else []
            flags += [f"--checkpointing {checkpointing}"] if checkpointing != config.checkpointing else []
            return f"give `{' '.join(flags)}`, which needs about {_gib(needed)}"
    return (
        f"even `--size {size} --checkpointing {checkpointing}` needs about {_gib(needed)}, so take "
        "fewer --frames or another device"
    )


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Half of what a matrix product reaches here, measured for a moment."""
    size = 4096 if device.type == "cuda" else 768
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return size**3 / best


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"

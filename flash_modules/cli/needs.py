"""What a run of training needs, and which settings need less."""

from collections.abc import Iterator
from functools import partial

from ..flash.training.action_training import ActionTraining, Host
from ..flash.training.detail_needs import detail_memory, details_that_fit
from ..flash.training.detail_training import DetailHost, DetailTraining
from ..flash.training.needs import (
    check_fits,
    flops_per_second,
    gib,
    memory_was_full,
    nearest_that_fits,
    seconds_per_step,
    training_memory,
)
from .device import free_memory


def needs(training: ActionTraining[Host]) -> Iterator[str]:
    """What a run takes: weights that learn, work, memory and time."""
    config, cost = training.config, training.cost()
    learning = sum(weight.numel() for weight in training.host.weights.values())
    speed = flops_per_second(training.host.device, config.dtype)
    seconds = seconds_per_step(training, speed)
    size = config.method.augment.size
    yield f"{len(training.host.weights)} weight tensors learn, {learning / 1e6:.1f} million numbers."
    yield (
        f"A pair of {config.sampling.num_frames} frames of {size} x {size} takes "
        f"{cost.flops / 1e12:.3g} TFLOP."
    )
    yield (
        f"Memory: about {gib(training_memory(training))} at checkpointing {config.checkpointing}; "
        f"{gib(free_memory(training.host.device))} are free."
    )
    yield (
        f"Time: about {seconds:.2f} s a step and {config.loop.steps * seconds / 3600:.1f} h for "
        f"{config.loop.steps} steps, if it reaches half of what this device's matrix products do "
        f"({2 * speed / 1e12:.2f} TFLOP/s)."
    )


def check_memory(training: ActionTraining[Host]) -> None:
    """Raise ValueError, with settings that fit, if training takes more memory than is free."""
    device = training.host.device
    check_fits(training_memory(training), free_memory(device), device, partial(_remedy, training))


def out_of_memory(training: ActionTraining[Host]) -> ValueError:
    """What to say when memory ran out all the same."""
    full = memory_was_full(training_memory(training), training.host.device, partial(_remedy, training))
    return ValueError(f"{full} The last checkpoint is kept, and so is what was encoded until then.")


def check_detail_memory(training: DetailTraining[DetailHost]) -> None:
    """Raise ValueError, with settings that fit, if training details takes more memory than is free."""
    device = training.host.device
    check_fits(detail_memory(training), free_memory(device), device, partial(_detail_remedy, training))


def out_of_detail_memory(training: DetailTraining[DetailHost]) -> ValueError:
    """What to say when memory ran out all the same."""
    remedy = partial(_detail_remedy, training)
    full = memory_was_full(detail_memory(training), training.host.device, remedy)
    return ValueError(f"{full} The last checkpoint is kept.")


def _detail_remedy(training: DetailTraining[DetailHost], free: float) -> str:
    config, near = training.config, details_that_fit(training, free)
    if not near.fits:
        return (
            f"even `--size {near.size} --frames-per-step {near.frames}` needs about {gib(near.needed)}, so "
            "take a smaller --size or another device"
        )
    flags = [f"--size {near.size}"] if near.size != config.size else []
    flags += [f"--frames-per-step {near.frames}"] if near.frames != config.frames else []
    return f"give `{' '.join(flags)}`, which needs about {gib(near.needed)}"


def _remedy(training: ActionTraining[Host], free: float) -> str:
    """The settings nearest to the present ones that fit, as flags."""
    config, near = training.config, nearest_that_fits(training, free)
    if not near.fits:
        return (
            f"even `--size {near.size} --checkpointing {near.checkpointing}` needs about "
            f"{gib(near.needed)}, so take fewer --frames or another device"
        )
    flags = [f"--size {near.size}"] if near.size != config.method.augment.size else []
    flags += [f"--checkpointing {near.checkpointing}"] if near.checkpointing != config.checkpointing else []
    return f"give `{' '.join(flags)}`, which needs about {gib(near.needed)}"

"""What a run of training needs, and which settings need less."""

from collections.abc import Iterator

from ..flash.training.action_training import ActionTraining, Host
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
    check_fits(training, free_memory(training.host.device), _remedy)


def out_of_memory(training: ActionTraining[Host]) -> ValueError:
    """What to say when memory ran out all the same."""
    full = memory_was_full(training, _remedy)
    return ValueError(f"{full} The last checkpoint is kept, and so is what was encoded until then.")


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

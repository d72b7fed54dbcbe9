"""Whether a training fits into the memory that there is, said before its first step."""

import comfy.model_management

from .....flash.training.action_training import ActionTraining, Host
from .....flash.training.needs import frugal_settings, training_memory


def check_memory(training: ActionTraining[Host]) -> None:
    """Raise ValueError, with settings that fit, if training takes more memory than is free."""
    needed, free = training_memory(training), _free_memory(training)
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
        f"programs take some too. Close them, or: {_remedy(training, 0.9 * needed)}. The last whole step is "
        "kept."
    )


def used_memory(training: ActionTraining[Host]) -> str:
    """What ComfyUI's process takes, or its part of the GPU, in words."""
    device = training.host.device
    total = comfy.model_management.get_total_memory(device)
    return f"{_gib(total - comfy.model_management.get_free_memory(device))} of {_gib(total)} in use"


def _free_memory(training: ActionTraining[Host]) -> float:
    """What is free, with what the training's own weights take already."""
    return comfy.model_management.get_free_memory(training.host.device) + training.host.num_bytes


def _remedy(training: ActionTraining[Host], free: float) -> str:
    """The settings nearest to the present ones that fit, in words of the nodes."""
    config, needed = training.config, 0
    for size, checkpointing in frugal_settings(training):
        needed = training_memory(training, size, checkpointing)
        if needed <= free:
            changes = [f"`size` to {size}"] if size != config.method.augment.size else []
            changes += (
                [f"`checkpointing` to {checkpointing}"] if checkpointing != config.checkpointing else []
            )
            return f"in Training Options set {' and '.join(changes)}, which needs about {_gib(needed)}"
    return (
        f"even `size` {size} with `checkpointing` {checkpointing} needs about {_gib(needed)}, so take fewer "
        "`frames` in Training Options, or another device"
    )


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"

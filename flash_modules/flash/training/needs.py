"""The memory that training an action takes, and the settings that need less."""

from collections.abc import Iterator

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

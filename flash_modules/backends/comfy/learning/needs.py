"""Memory and time of a training, in words."""

import comfy.model_management
import torch

from ....flash.training.needs import gib
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

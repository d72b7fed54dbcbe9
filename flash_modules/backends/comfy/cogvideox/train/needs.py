"""Whether learning from one clip fits into the memory that there is, said before its first step."""

from functools import partial

import torch

from .....flash.training.needs import check_fits, flops_per_second, gib, memory_was_full
from .....flexiact.training.needs import Needs, first_that_fits, nearest_that_fits, step_needs
from .....training.loop import LoopConfig
from ...learning.needs import KEPT, free_memory, in_words
from .options import MEMORY, name_of
from .tokens import LearningTokens


def save_what_is_needed(host: LearningTokens, memory: str, device: torch.device, *, sure: bool) -> Needs:
    """Let the host save memory as the choice says, `auto` as little as fits; the result is what a step takes.

    Raises ValueError, with the choice that fits, if a step takes more than is free, unless it is `sure`: a
    run that goes on has shown that it fits.
    """
    free = free_memory(device, 0)
    saving, needs = first_that_fits(host, MEMORY[memory], free)
    host.save_memory(saving)
    if not sure:
        check_fits(needs.device_bytes, free, device, partial(_remedy, host))
    return needs


def estimate(host: LearningTokens, needs: Needs, loop: LoopConfig, steps: int, device: torch.device) -> str:
    """What so many steps will take, in words."""
    seconds = needs.flops * loop.accumulation / flops_per_second(device, host.dtype)
    return in_words(needs.device_bytes, seconds, steps)


def out_of_memory(host: LearningTokens) -> ValueError:
    """What to say when memory ran out all the same."""
    needed = step_needs(host, host.saving).device_bytes
    return ValueError(f"{memory_was_full(needed, host.device, partial(_remedy, host))} {KEPT}")


def _remedy(host: LearningTokens, free: float) -> str:
    saving, needs = nearest_that_fits(host, host.saving, free)
    setting = f"`memory` {name_of(saving)}, which needs about {gib(needs.device_bytes)}"
    if needs.device_bytes <= free:
        return f"set {setting}"
    return f"even {setting}, does not fit, so close what else uses it, or take another device"

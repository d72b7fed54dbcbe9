"""A training has ComfyUI to itself, and leaves its result whatever ends it."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import comfy.model_management
import torch

from ....training.run_folder import Progress


@contextmanager
def training_alone() -> Iterator[None]:
    """ComfyUI knows that something trains, its models are off the device; afterwards all is given back.

    Gradients through quantised layers are not in fp8, which loses small ones: core's Train LoRA can ask for
    that, and never takes it back.
    """
    management = comfy.model_management
    before = management.in_training, management.training_fp8_bwd
    unload_models()
    management.in_training, management.training_fp8_bwd = True, False
    try:
        yield
    finally:
        management.in_training, management.training_fp8_bwd = before
        gc.collect()
        comfy.model_management.soft_empty_cache()


def unload_models() -> None:
    """Take ComfyUI's models off the device."""
    with torch.inference_mode():
        comfy.model_management.unload_all_models()


def train_and_write(
    train: Callable[..., Progress],
    write: Callable[[int], None],
    on_step: Callable[[Progress], object],
    memory_is_full: Callable[[], ValueError],
) -> int:
    """Call `train(on_step=...)` until the last step or a stop; the result is the step that was written.

    Cancel writes what the last whole step of this sitting gave, too, and is raised again.
    """
    last = 0

    def note(progress: Progress) -> None:
        nonlocal last
        last = progress.step
        on_step(progress)

    try:
        end = train(on_step=note)
    except comfy.model_management.InterruptProcessingException:
        if last:  # before its first step the file is as it should be
            write(last)
        raise
    except comfy.model_management.OOM_EXCEPTION as error:
        raise memory_is_full() from error
    write(end.step)
    return end.step

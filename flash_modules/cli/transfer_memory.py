"""What learning on CogVideoX needs: switches that save memory, and refusals before anything is learned."""

import argparse
from typing import Any

import torch

from ..backends.diffusers.cogvideox import BaseFiles, load_vae
from ..backends.diffusers.cogvideox.train import LearningHost, encoding_bytes
from ..flash.training.needs import gib
from ..flexiact.training.needs import Needs, nearest_that_fits
from ..flexiact.training.saving import CHECKPOINTING, Saving
from .device import free_memory

LEAST = "give --checkpointing cpu --offload blocks"
FULL = f"Memory ran out: {LEAST}, or close what else uses it. The last checkpoint is kept."


def add_saving_arguments(group: Any) -> None:
    """Arguments that say how memory is saved."""
    group.add_argument(
        "--checkpointing",
        choices=CHECKPOINTING,
        default="blocks",
        help="blocks (default): they run twice to save memory; cpu: and what is kept of them waits there",
    )
    group.add_argument(
        "--offload",
        choices=("none", "blocks"),
        default="none",
        help="blocks: their weights wait in the computer's memory, and each comes to the GPU while it runs",
    )


def chosen_saving(args: argparse.Namespace) -> Saving:
    """What the arguments say of it."""
    return Saving(checkpointing=args.checkpointing, offload=args.offload == "blocks")


def check_memory(host: LearningHost, needs: Needs, device: torch.device) -> None:
    """Raise ValueError, with the setting that fits, if a step takes more than is free."""
    free = free_memory(device)
    if needs.device_bytes <= free:
        return
    saving, least = nearest_that_fits(host, host.saving, free)
    flags = f"--checkpointing {saving.checkpointing}{' --offload blocks' if saving.offload else ''}"
    fits = f"`{flags}`, which needs about {gib(least.device_bytes)}"
    remedy = (
        f"give {fits}" if least.device_bytes <= free else f"even {fits}, does not fit: take another device"
    )
    raise ValueError(
        f"Learning needs about {gib(needs.device_bytes)}, and {gib(free)} are free on {device}: {remedy}."
    )


def check_encoding(files: BaseFiles, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ValueError if a video cannot be encoded in what is free."""
    shape, free = files.shape, free_memory(device)
    needed = encoding_bytes(load_vae(files, dtype), (shape.frames, shape.height, shape.width))
    if needed > free:
        raise ValueError(
            f"Encoding a clip needs about {gib(needed)}, once, and {gib(free)} are free on {device}: close "
            "what else uses it, or take another device."
        )


def described(needs: Needs, *, steps: int, parts: int = 1) -> str:
    """What a run takes in words; each process takes so many parts of a step, one after the other."""
    waits = f", and {gib(needs.waiting_bytes)} of the computer's" if needs.waiting_bytes else ""
    flops = needs.flops * parts
    return (
        f"A step takes {flops / 1e12:.3g} TFLOP and {gib(needs.device_bytes)} of memory{waits}; "
        f"{steps} steps take {flops * steps / 1e18:.3g} EFLOP."
    )

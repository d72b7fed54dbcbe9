"""Blocks of a transformer that stay in the computer's memory, and are on the GPU only while they compute."""

from collections.abc import Callable

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from ....flexiact.training.saving import copied


def keep_blocks_on_cpu(transformer: CogVideoXTransformer3DModel, device: torch.device) -> Callable[[], None]:
    """Move all but the blocks to the device, and each block for as long as it computes.

    A step then reads all blocks over the bus, 10 GiB in bf16; the result is the same. What comes back takes
    the hooks out again, with the whole transformer on the CPU.
    """
    transformer.to("cpu")
    for name, part in transformer.named_children():
        if name != "transformer_blocks":
            part.to(device)
    handles = []
    for block in transformer.transformer_blocks:
        visit = _Visit(block, device)
        handles.append(block.register_forward_pre_hook(visit.begin))
        handles.append(block.register_forward_hook(visit.end, always_call=True))

    def remove() -> None:
        for handle in handles:
            handle.remove()
        transformer.to("cpu")

    return remove


class _Visit:
    """A block's stay on a device: its own tensors wait on the CPU, and need not be copied back."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        self._at_home = {parameter: parameter.data for parameter in block.parameters()}
        self._device = device

    def begin(self, block: nn.Module, args: tuple) -> None:
        for parameter, values in self._at_home.items():
            parameter.data = copied(values, self._device)

    def end(self, block: nn.Module, args: tuple, out: object) -> None:
        for parameter, values in self._at_home.items():
            parameter.data = values

"""What a step of learning takes, counted on three blocks: in any host."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ...training.cost import Cost, counting
from .saving import SAVINGS, Saving

_AT_A_TIME = 2
"""Blocks whose copied weights are on the device together, at most: one runs while another's go."""


class Counted(Protocol):
    """A host whose steps can be counted."""

    saving: Saving

    @property
    def device(self) -> torch.device: ...

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Those that learn."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def num_bytes(self) -> int:
        """Of all frozen weights."""

    @property
    def block_bytes(self) -> int:
        """Of those of all blocks."""

    @property
    def input_shapes(self) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
        """Of the latents (F, C, h, w) and of the text (M, C) that it knows."""

    def save_memory(self, saving: Saving) -> None: ...

    def first_blocks(self, count: int) -> AbstractContextManager[None]:
        """So many blocks alone, as long as it lasts."""

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of a step; with AdamW's averages of what learns, and the weights."""

    flops: int
    device_bytes: int
    """On the device: weights, what learns, and the most that a step holds."""
    waiting_bytes: int
    """In the computer's memory: inputs and weights of blocks, if they wait there."""


def step_needs(host: Counted, saving: Saving) -> Needs:
    """What a step takes, on one clip, with what saves memory."""
    before, blocks = host.saving, host.num_blocks
    host.save_memory(Saving(checkpointing="none" if saving.checkpointing == "none" else "blocks"))
    two, three = (_cost(host, count) for count in (2, 3))
    host.save_memory(before)
    more = blocks - 3
    inputs = more * (three.peak_bytes - two.peak_bytes)
    waits = saving.checkpointing == "cpu"
    learning = 4 * sum(4 * weight.numel() for weight in host.weights.values())  # with gradient and averages
    away = host.block_bytes if saving.offload else 0
    here = host.num_bytes - away + away * _AT_A_TIME // blocks
    return Needs(
        flops=three.flops + more * (three.flops - two.flops),
        device_bytes=here + learning + three.peak_bytes + (0 if waits else inputs),
        waiting_bytes=(inputs if waits else 0) + away,
    )


def nearest_that_fits(host: Counted, saving: Saving, free: float) -> tuple[Saving, Needs]:
    """What saves more memory, as little as fits into so many bytes; else what saves the most."""
    return first_that_fits(host, SAVINGS[SAVINGS.index(saving) + 1 :] or (saving,), free)


def first_that_fits(host: Counted, savings: tuple[Saving, ...], free: float) -> tuple[Saving, Needs]:
    """The first of them that fits into so many bytes; else the last."""
    for saving in savings:
        needs = step_needs(host, saving)
        if needs.device_bytes <= free:
            break
    return saving, needs


def _cost(host: Counted, count: int) -> Cost:
    """Forward and backward of the first blocks alone."""
    latents_FCHW, text_MC = host.input_shapes
    try:
        with host.first_blocks(count), counting() as counter, host.device:
            latents, text_embeds = torch.empty(1, *latents_FCHW), torch.empty(1, *text_MC)
            timestep_1 = torch.ones(1, dtype=torch.long)
            loss = host.predict(latents, latents, timestep_1, text_embeds).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for weight in host.weights.values():
            weight.grad = None
    return counter.cost

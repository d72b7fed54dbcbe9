"""What a step of learning takes, counted on three blocks."""

from dataclasses import dataclass

import torch
from torch import nn

from .....training.cost import Cost, counting
from ..guidance import latents_shape
from ..memory import bytes_of
from .tokens import Checkpointing, LearningTokens


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of a step; with AdamW's averages of the tokens, and the weights."""

    flops: int
    device_bytes: int
    """On the device: weights, tokens, and the most that a step holds."""
    waiting_bytes: int
    """In the computer's memory: inputs of blocks, if they wait there."""


def step_needs(host: LearningTokens, checkpointing: Checkpointing) -> Needs:
    """What a step takes, on one clip."""
    blocks = len(host.transformer.transformer_blocks)
    two, three = (_cost(host, count) for count in (2, 3))
    more = blocks - 3
    inputs = more * (three.peak_bytes - two.peak_bytes)
    waits = checkpointing == "cpu"
    learning = 4 * sum(4 * tokens.numel() for tokens in host.tokens.values())  # with gradient and averages
    return Needs(
        flops=three.flops + more * (three.flops - two.flops),
        device_bytes=bytes_of(host.transformer) + learning + three.peak_bytes + (0 if waits else inputs),
        waiting_bytes=inputs if waits else 0,
    )


def _cost(host: LearningTokens, count: int) -> Cost:
    """Forward and backward of the first blocks alone."""
    transformer, config, device = host.transformer, host.transformer.config, host.device
    all_blocks = transformer.transformer_blocks
    transformer.transformer_blocks = nn.ModuleList(all_blocks[:count])
    try:
        with counting() as counter, device:
            latents = torch.empty(1, *latents_shape(transformer))
            text_embeds = torch.empty(1, config.max_text_seq_length, config.text_embed_dim)
            timestep_1 = torch.ones(1, dtype=torch.long)
            host.predict(latents, latents, timestep_1, text_embeds).square().mean().backward()
    finally:
        transformer.transformer_blocks = all_blocks
        for tokens in host.tokens.values():
            tokens.grad = None
    return counter.cost

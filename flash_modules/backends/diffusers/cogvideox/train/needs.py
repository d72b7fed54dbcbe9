"""What a step of learning takes, counted on three blocks."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn

from .....training.cost import Cost, counting
from ..guidance import latents_shape
from ..memory import bytes_of
from .encode import encode_moments
from .saving import SAVINGS, Saving
from .tokens import LearningTokens

_AT_A_TIME = 2
"""Blocks whose copied weights are on the device together, at most: one runs while another's go."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Of a step; with AdamW's averages of the tokens, and the weights."""

    flops: int
    device_bytes: int
    """On the device: weights, tokens, and the most that a step holds."""
    waiting_bytes: int
    """In the computer's memory: inputs and weights of blocks, if they wait there."""


def step_needs(host: LearningTokens, saving: Saving) -> Needs:
    """What a step takes, on one clip, with what saves memory."""
    transformer, before = host.transformer, host.saving
    blocks = len(transformer.transformer_blocks)
    host.save_memory(Saving(checkpointing="none" if saving.checkpointing == "none" else "blocks"))
    two, three = (_cost(host, count) for count in (2, 3))
    host.save_memory(before)
    more = blocks - 3
    inputs = more * (three.peak_bytes - two.peak_bytes)
    waits = saving.checkpointing == "cpu"
    learning = 4 * sum(4 * tokens.numel() for tokens in host.tokens.values())  # with gradient and averages
    away = bytes_of(transformer.transformer_blocks) if saving.offload else 0
    here = bytes_of(transformer) - away + away * _AT_A_TIME // blocks
    return Needs(
        flops=three.flops + more * (three.flops - two.flops),
        device_bytes=here + learning + three.peak_bytes + (0 if waits else inputs),
        waiting_bytes=(inputs if waits else 0) + away,
    )


def nearest_that_fits(host: LearningTokens, saving: Saving, free: int) -> tuple[Saving, Needs]:
    """What saves more memory, as little as fits into so many bytes; else what saves the most."""
    for more in SAVINGS[SAVINGS.index(saving) + 1 :] or (saving,):
        needs = step_needs(host, more)
        if needs.device_bytes <= free:
            break
    return more, needs


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


def encoding_bytes(vae: AutoencoderKLCogVideoX, video: tuple[int, int, int]) -> int:
    """The VAE's weights, and the most that it holds while it encodes a video of so many (F, H, W)."""
    frames, height, width = video
    with counting() as counter:
        encode_moments(vae, torch.empty(frames, 3, height, width, dtype=vae.dtype))
    return bytes_of(vae) + counter.cost.peak_bytes

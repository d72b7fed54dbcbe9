"""The memory that a forward takes."""

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from ....flexiact.action_file import TransferAction
from ....flexiact.performance import Performance
from ....training.cost import Cost, counting
from .guidance import latents_shape, predict_velocity
from .transfer import add_transfer

_TOKENS = 226
"""Of the released actions."""


def bytes_of(module: nn.Module) -> int:
    """Of its weights."""
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def forward_cost(transformer: CogVideoXTransformer3DModel, *, boosted: bool, tokens: int = _TOKENS) -> Cost:
    """Work and memory of one prediction for one video with an action; its weights are not counted.

    `boosted` is a step in which heads are wider, for the early boost or a strength. No tokens are no action.
    """
    config = transformer.config
    layers, width = len(transformer.transformer_blocks), transformer.proj_out.in_features
    timestep_1 = torch.tensor([999 if boosted else 0], device=transformer.device)  # its value is looked at
    with torch.no_grad(), counting() as counter, transformer.device:
        action = TransferAction(name="counted", tokens_LMC=torch.zeros(layers, tokens, width))
        remove = add_transfer(transformer, [Performance(action=action)] if tokens else [])
        latents = torch.zeros(1, *latents_shape(transformer))
        text_embeds = torch.zeros(1, config.max_text_seq_length, config.text_embed_dim)
        predict_velocity(transformer, latents, latents, timestep_1, text_embeds)
        remove()
    return counter.cost


def forward_bytes(transformer: CogVideoXTransformer3DModel) -> int:
    """Weights and the most that a step holds beside them, all on one device."""
    return bytes_of(transformer) + forward_cost(transformer, boosted=True).peak_bytes

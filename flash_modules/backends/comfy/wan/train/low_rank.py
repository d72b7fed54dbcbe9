"""The LoRA that learns: low-rank changes of a transformer's projections (arXiv:2106.09685)."""

import math
from collections.abc import Iterator, Mapping

import torch
from comfy.ldm.wan.model import WanModel
from torch import Tensor, nn
from torch.nn.functional import linear

from .....training.sampling import seeded
from ...learning.own_weights import MODEL

_SELF, _TEXT = ("q", "k", "v", "o"), ("k", "v")
"""Projections of the self-attentions, and of the attentions to the text."""


class _Changed(nn.Module):
    """A layer, however its weights are kept, plus up(down(x)); the layer itself is never written to."""

    def __init__(self, layer: nn.Module, down_RC: nn.Parameter, up_CR: nn.Parameter) -> None:
        super().__init__()
        self.layer, self.down_RC, self.up_CR = layer, down_RC, up_CR

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + linear(linear(x, self.down_RC.to(x)), self.up_CR.to(x))


def add_low_rank(net: WanModel, rank: int, *, text: bool, seed: int) -> Mapping[str, nn.Parameter]:
    """Put a LoRA onto the network's self-attentions, and with `text` onto keys and values of the text.

    The result are its weights in fp32 on the CPU, by their names in LoRA files; there is no alpha, as the
    scale is 1. Down is drawn as PEFT draws it, up is zero, so that at first nothing has changed.
    """
    weights: dict[str, nn.Parameter] = {}
    for name, attention, projection in _places(net, text=text):
        layer = getattr(attention, projection)
        width_out, width_in = layer.weight.shape
        generator = seeded(seed, "low rank", name)
        bound = 1 / math.sqrt(width_in)
        down_RC = nn.Parameter(torch.empty(rank, width_in).uniform_(-bound, bound, generator=generator))
        up_CR = nn.Parameter(torch.zeros(width_out, rank))
        setattr(attention, projection, _Changed(layer, down_RC, up_CR))
        weights[f"{MODEL}{name}.lora_A.weight"] = down_RC
        weights[f"{MODEL}{name}.lora_B.weight"] = up_CR
    return weights


def _places(net: WanModel, *, text: bool) -> Iterator[tuple[str, nn.Module, str]]:
    """Names of the layers, the attentions that hold them, and what they are called there."""
    for index, block in enumerate(net.blocks):
        kinds = (("self_attn", _SELF), ("cross_attn", _TEXT if text else ()))
        for kind, projections in kinds:
            for projection in projections:
                yield f"blocks.{index}.{kind}.{projection}", getattr(block, kind), projection

"""What a step of training costs, counted without computing it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ...motion_alignment import PairCall
from ...training.loss import Predict


@dataclass(frozen=True)
class Cost:
    """Of one part of a step."""

    flops: int
    """Forward and backward, a multiply and an add counting as two."""
    saved_bytes: int
    """What the forward pass keeps for the backward pass, beside the weights."""


def count_cost(
    predict: Predict,
    weights: Iterable[Tensor],
    latents_shape: torch.Size,
    text_embeds_1MC: Tensor,
    *,
    num_layers: int,
    twins: bool,
    device: torch.device,
) -> Cost:
    """The cost of predicting the noise of one clip (F, C, h, w), of its twin too if there are twins.

    `weights` are those that learn. Nothing is computed: tensors have shapes alone.
    """
    videos = 2 if twins else 1
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        latents_BFCHW = torch.empty(videos, *latents_shape, device=device)
        text_embeds_BMC = torch.empty(videos, *text_embeds_1MC.shape[1:], device=device)
        timestep_B = torch.ones(videos, dtype=torch.long, device=device)
        swaps_L = torch.zeros(num_layers, dtype=torch.bool, device=device)
        call = PairCall(num_pairs=1, swaps_L=swaps_L) if twins else None
        loss = predict(latents_BFCHW, timestep_B, text_embeds_BMC, call).float().square().mean()
        loss.backward()
        for weight in weights:
            weight.grad = None
    return Cost(counter.get_total_flops(), sum(saved.values()))

"""Weights of ours in ComfyUI's hands, which decides when they move to the GPU."""

from collections.abc import Mapping

import comfy.model_patcher
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn


def make_patcher(
    net: nn.Module,
    tensors: Mapping[str, Tensor],
    device: torch.device,
    offload_device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    disable_dynamic: bool,
) -> ModelPatcher:
    """A patcher of a model that is made on the meta device, with these weights, in `dtype` or as they are.

    `disable_dynamic` is what ComfyUI's `cached_patcher_init` is called with.
    """
    # The class is looked up at each call: ComfyUI exchanges it at start-up.
    patcher_class = ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(net, device, offload_device)
    net.load_state_dict({name: t.to(offload_device, dtype) for name, t in tensors.items()}, assign=True)
    net.eval().requires_grad_(False)
    return patcher

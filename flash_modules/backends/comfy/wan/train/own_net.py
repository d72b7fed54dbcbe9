"""A transformer of our own with a MODEL's weights, frozen, which ComfyUI's memory manager does not know."""

import comfy.ops
import torch
from comfy.ldm.wan.model import WanModel
from comfy.model_patcher import ModelPatcher

from .....files.tensor_file import fingerprint
from ...learning.own_weights import (
    MODEL,
    current_weights,
    is_quantised,
    other_changes,
    quantised_state,
    shared_weights,
)
from ..kinds import check_model

_WEIGHTS = (".weight", ".bias", ".modulation")
"""End the names of weights; what else a state has tells how they are quantised."""
_KNOWN_BY = ("self_attn.q", "self_attn.v", "cross_attn.k", "ffn.2")
"""Layers of the first and the last block that a base is known by."""


def check_learnable(model: ModelPatcher) -> None:
    """Raise ValueError unless the MODEL is a plain Wan2.2 TI2V-5B, with LoRAs or without."""
    check_model(model)
    if found := list(other_changes(model)):
        raise ValueError(
            f"This MODEL carries what cannot be learned with: {', '.join(found)}. Connect Load Diffusion "
            "Model itself, or a LoRA or ModelSamplingSD3 behind it, without the nodes in between."
        )


@torch.no_grad()
def own_net(model: ModelPatcher) -> WanModel:
    """The MODEL's transformer with LoRAs baked in; its layers cast weights as they need, and quantised ones
    compute as the MODEL's do.

    Weights without a LoRA lie where the MODEL's do: copies take 10 GiB.
    """
    base, quantised = model.model, is_quantised(model)
    operations = comfy.ops.manual_cast
    if quantised:
        operations = comfy.ops.pick_operations(
            base.get_dtype(), base.manual_cast_dtype, model_config=base.model_config
        )
    with torch.device("meta"):
        net = WanModel(**base.model_config.unet_config, operations=operations)
    net.load_state_dict(quantised_state(model) if quantised else shared_weights(model, _WEIGHTS), assign=True)
    return net.eval().requires_grad_(False)


def base_fingerprint(model: ModelPatcher) -> str:
    """What a run knows the MODEL by, with LoRAs that change what `_KNOWN_BY` names."""
    last = len(model.model.diffusion_model.blocks) - 1
    names = [f"{MODEL}blocks.{block}.{layer}.weight" for block in sorted({0, last}) for layer in _KNOWN_BY]
    return fingerprint(current_weights(model, names))

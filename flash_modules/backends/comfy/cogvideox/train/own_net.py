"""A transformer of our own with a MODEL's weights, frozen, which ComfyUI's memory manager does not know."""

import comfy.ops
import comfy.utils
import torch
from comfy.ldm.cogvideo.model import CogVideoXTransformer3DModel
from comfy.model_patcher import ModelPatcher

from .....files.tensor_file import fingerprint
from .....flexiact.training.token_training import KNOWN_BY
from ...learning.own_weights import MODEL, current_weights, other_changes, shared_weights
from ..corrections import CORRECTED, corrections
from ..kinds import check_model
from ..names import core_name
from ..transfer import PERFORMANCES, REF_ADAPTER

_WEIGHTS = (".weight", ".bias", ".pos_embedding")
"""End the names of weights; what else a state has tells how they are quantised."""


def check_learnable(model: ModelPatcher) -> None:
    """Raise ValueError unless the MODEL is a plain CogVideoX-5b-I2V, with LoRAs or without."""
    check_model(model)
    options = model.model_options["transformer_options"]
    if options.get(PERFORMANCES) or REF_ADAPTER in options:
        raise ValueError(
            "This MODEL performs an action, or has a RefAdapter, and a new action is learned without: "
            "connect Load CogVideoX I2V itself, or a LoRA behind it."
        )
    ours = {MODEL + path for path in corrections(model.model.diffusion_model)}
    known = {CORRECTED, PERFORMANCES, "model_sampling"} | ours
    if found := list(other_changes(model, known)):
        raise ValueError(
            f"This MODEL carries what cannot be learned with: {', '.join(found)}. Connect Load CogVideoX I2V "
            "itself, or a LoRA behind it, without the nodes in between."
        )


@torch.no_grad()
def own_net(model: ModelPatcher) -> CogVideoXTransformer3DModel:
    """The MODEL's transformer, corrected, with LoRAs baked in; its layers cast weights as they need.

    Weights without a LoRA lie where the MODEL's do: copies take 10 GiB.
    """
    with torch.device("meta"):
        config = model.model.model_config.unet_config
        net = CogVideoXTransformer3DModel(**config, operations=comfy.ops.manual_cast)
    net.eval().requires_grad_(False)
    net.load_state_dict(shared_weights(model, _WEIGHTS), assign=True)
    for path, value in corrections(net).items():
        comfy.utils.set_attr(net, path, value)
    return net


@torch.no_grad()
def base_fingerprint(model: ModelPatcher) -> str:
    """What a run knows the MODEL by, with LoRAs: equal to that of the other host."""
    names = {MODEL + core_name(name): name for name in KNOWN_BY}
    return fingerprint({names[key]: weight for key, weight in current_weights(model, names).items()})

"""A U-Net of our own with a MODEL's weights, which ComfyUI's memory manager does not know."""

import comfy.model_sampling
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from .....animatediff.noise_schedule import Prediction
from .....files.tensor_file import fingerprint
from ...learning.own_weights import MODEL, baked, other_changes, own_weights
from ..action import kv_keys
from ..options import MOTION
from ..places import check_sd15

_PREDICTIONS: dict[type, Prediction] = {
    comfy.model_sampling.EPS: "epsilon",
    comfy.model_sampling.V_PREDICTION: "v_prediction",
}


def check_learnable(model: ModelPatcher) -> None:
    """Raise ValueError unless the MODEL is a plain SD 1.5 checkpoint, with LoRAs or without."""
    check_sd15(model)
    if model.get_additional_models_with_key(MOTION):
        raise ValueError(
            "This MODEL has a motion already, and Learn Action brings its own: connect the checkpoint "
            "itself, or a LoRA behind it, and the motion module to `motion`."
        )
    if found := list(other_changes(model)):
        raise ValueError(
            f"This MODEL carries what cannot be learned with: {', '.join(found)}. Connect the checkpoint "
            "itself, or a LoRA behind it, without the nodes in between."
        )
    prediction_of(model)


def prediction_of(model: ModelPatcher) -> Prediction:
    """What the MODEL predicts. Raises ValueError for kinds that nothing can be learned with."""
    sampling = type(model.get_model_object("model_sampling"))
    kind = next(base for base in sampling.__mro__ if "calculate_denoised" in vars(base))
    if kind not in _PREDICTIONS:
        raise ValueError(
            f"This MODEL predicts {kind.__name__}, and an action is learned on one that predicts the noise "
            "(eps) or the velocity (v_prediction): take the ModelSampling node away."
        )
    return _PREDICTIONS[kind]


def own_unet(model: ModelPatcher) -> UNetModel:
    """A copy of the MODEL's U-Net on the CPU, with LoRAs baked in; its layers cast weights as they need."""
    unet = UNetModel(**model.model.model_config.unet_config, device="meta", operations=comfy.ops.manual_cast)
    weights = own_weights(model)
    unet.load_state_dict({name.removeprefix(MODEL): w for name, w in weights.items()}, assign=True)
    return unet.eval().requires_grad_(False)


def base_fingerprint(model: ModelPatcher) -> str:
    """What a run knows the MODEL by: its spatial keys and values, with LoRAs; as in the other host."""
    with torch.no_grad():
        patches = model.get_key_patches(MODEL)
        return fingerprint({name: baked(key, *patches[key]) for name, key in kv_keys(model).items()})


def keys_values(unet: UNetModel, model: ModelPatcher) -> dict[str, torch.nn.Parameter]:
    """The spatial keys and values of the copy, by their names in action files."""
    return {name: unet.get_parameter(key.removeprefix(MODEL)) for name, key in kv_keys(model).items()}

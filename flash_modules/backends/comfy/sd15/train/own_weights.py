"""A U-Net of our own with a MODEL's weights, which ComfyUI's memory manager does not know.

A weight that learns inside a clone of the MODEL would be lost without a word: where a LoRA acts on it too,
ComfyUI puts the old one back as soon as it unloads the clone.
"""

from collections.abc import Iterator, Mapping

import comfy.lora
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .....animatediff.noise_schedule import Prediction
from .....files.tensor_file import fingerprint
from ..action import kv_keys
from ..options import MOTION
from ..places import check_sd15

_UNET = "diffusion_model."
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
    if found := list(_others(model)):
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


def _others(model: ModelPatcher) -> Iterator[str]:
    """All that changes what the MODEL computes, beside weight patches and the schedule, by name."""
    options = dict(model.model_options)
    inner = dict(options.pop("transformer_options", {}))
    replaced = inner.pop("patches_replace", {})
    yield from (f"the patch '{name}'" for name, patches in inner.pop("patches", {}).items() if patches)
    yield from (f"the replacement of '{name}'" for name, patches in replaced.items() if patches)
    yield from (f"the option '{name}'" for name in [*options, *inner])
    yield from (f"the object patch '{name}'" for name in model.object_patches if name != "model_sampling")
    yield from (f"the weight wrapper of '{name}'" for name in model.weight_wrapper_patches)
    for what, kinds in (("wrapper", model.wrappers), ("callback", model.callbacks)):
        for kind, by_key in kinds.items():
            yield from (f"the {what} '{key}' ({kind})" for key, functions in by_key.items() if functions)
    yield from (f"the injection '{name}'" for name in model.injections)
    yield from (f"the additional model '{name}'" for name in model.additional_models)
    if model.hook_patches or model.forced_hooks:
        yield "hooks (LoRAs that come and go)"


def own_unet(model: ModelPatcher) -> UNetModel:
    """A copy of the MODEL's U-Net on the CPU, with LoRAs baked in; its layers cast weights as they need."""
    unet = UNetModel(**model.model.model_config.unet_config, device="meta", operations=comfy.ops.manual_cast)
    weights = own_weights(model)
    unet.load_state_dict({name.removeprefix(_UNET): w for name, w in weights.items()}, assign=True)
    return unet.eval().requires_grad_(False)


@torch.no_grad()
def own_weights(model: ModelPatcher, prefix: str = _UNET) -> dict[str, Tensor]:
    """Copies of the MODEL's weights on the CPU, with its patches where there are some, those in fp32."""
    return {name: baked(name, *patches) for name, patches in model.get_key_patches(prefix).items()}


def baked(name: str, plain: tuple, *patches: tuple) -> Tensor:
    """A copy of a weight on the CPU with its patches, as `get_key_patches` gives both."""
    weight, convert = plain
    if not patches:
        return convert(weight.to("cpu", copy=True), inplace=True)
    wide = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
    return comfy.lora.calculate_weight(list(patches), wide, name)


def base_fingerprint(model: ModelPatcher) -> str:
    """What a run knows the MODEL by: its spatial keys and values, with LoRAs; as in the other host."""
    with torch.no_grad():
        patches = model.get_key_patches(_UNET)
        return fingerprint({name: baked(key, *patches[key]) for name, key in kv_keys(model).items()})


def keys_values(unet: UNetModel, model: ModelPatcher) -> dict[str, torch.nn.Parameter]:
    """The spatial keys and values of the copy, by their names in action files."""
    return {name: unet.get_parameter(key.removeprefix(_UNET)) for name, key in kv_keys(model).items()}


def baked_in(model: ModelPatcher) -> Mapping[str, object]:
    """What an action's header tells of the weight patches (LoRAs) that were baked in; empty without any."""
    keys = [key for key in model.patches if key.startswith(_UNET)]
    patches = [patch for key in keys for patch in model.patches[key]]
    if not patches:
        return {}
    return {
        "weights": len(keys),
        "kinds": sorted({_kind(value) for _, value, *_ in patches}),
        "strengths": sorted({round(float(strength), 4) for strength, *_ in patches}),
    }


def _kind(value: object) -> str:
    if isinstance(value, tuple):
        return str(value[0]) if len(value) == 2 else "diff"
    return str(getattr(value, "name", type(value).__name__))

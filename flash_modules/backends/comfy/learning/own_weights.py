"""Copies of a MODEL's weights, which ComfyUI's memory manager does not know.

A weight that learns inside a clone of the MODEL would be lost without a word: where a LoRA acts on it too,
ComfyUI puts the old one back as soon as it unloads the clone.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import comfy.lora
import torch
from comfy.model_patcher import ModelPatcher, get_key_weight
from torch import Tensor

MODEL = "diffusion_model."
"""Begins the names of a MODEL's own weights."""
_ONE_WAY = ("convrot_w4a4", "asym_w4a8_int8")
"""Kinds of quantised layers whose backward pass ComfyUI has not written."""


@torch.no_grad()
def own_weights(model: ModelPatcher, prefix: str = MODEL) -> dict[str, Tensor]:
    """Copies of the MODEL's weights on the CPU, with its patches where there are some, those in fp32."""
    return {name: baked(name, *patches) for name, patches in model.get_key_patches(prefix).items()}


def key_patches(model: ModelPatcher, names: Iterable[str]) -> dict[str, list]:
    """What ModelPatcher's `get_key_patches` gives, of these weights alone.

    It asks quantised layers for entries of their state that are no weights, and fails.
    """
    found = {}
    for name in names:
        weight, _, convert = get_key_weight(model.model, name)
        plain = model.backup[name].weight if name in model.backup else weight
        found[name] = [(plain, convert or _unchanged), *model.patches.get(name, ())]
    return found


def _unchanged(weight: Tensor, **_: object) -> Tensor:
    return weight


def baked(name: str, plain: tuple, *patches: tuple) -> Tensor:
    """A copy of a weight on the CPU with its patches, as `get_key_patches` gives both."""
    weight, convert = plain
    if not patches:
        return convert(weight.to("cpu", copy=True), inplace=True)
    wide = convert(weight.to("cpu", torch.float32, copy=True), inplace=True)
    return comfy.lora.calculate_weight(list(patches), wide, name)


@torch.no_grad()
def shared_weights(model: ModelPatcher, endings: tuple[str, ...]) -> dict[str, Tensor]:
    """The MODEL's own weights whose names end so, by their names in its network, with patches baked in.

    Those without a patch lie where the MODEL's do, and must not be written to; others are copies in the
    weight's dtype. Quantised ones are spelled out.
    """
    names = [name for name in model.model.state_dict() if name.startswith(MODEL) and name.endswith(endings)]
    weights = current_weights(model, names)
    return {name.removeprefix(MODEL): _usable(weight) for name, weight in weights.items()}


def is_quantised(model: ModelPatcher) -> bool:
    """Whether layers of the MODEL keep their weights quantised, with scales."""
    return bool(getattr(model.model.model_config, "quant_config", None))


@torch.no_grad()
def quantised_state(model: ModelPatcher) -> dict[str, Tensor]:
    """The whole state of a quantised MODEL's network, for a network of the same layers.

    It lies where the MODEL's does, and must not be written to. Spelled out, in the dtype that the MODEL
    computes in, are weights with patches, which are baked in, and those without a backward pass.
    """
    net = model.model.diffusion_model
    patched = {name for name in model.patches if name.startswith(MODEL)}
    one_way = {f"{MODEL}{name}.weight" for name, layer in net.named_modules() if _is_one_way(layer)}
    state = dict(net.state_dict())
    for name, weight in current_weights(model, patched | one_way).items():
        own = name.removeprefix(MODEL)
        state[own] = _alone(own.removesuffix("weight"), state, weight) if own.endswith(".weight") else weight
    return {name: _usable(tensor) for name, tensor in state.items()}


def _is_one_way(layer: torch.nn.Module) -> bool:
    return getattr(layer, "quant_format", None) in _ONE_WAY


def _alone(layer: str, state: dict[str, Tensor], weight: Tensor) -> Tensor:
    """The weight as it acts without all else that the state has of how it is quantised, which goes."""
    told = [name for name in state if name.startswith(layer) and not name.endswith(".bias")]
    taken = {name.removeprefix(layer): state.pop(name) for name in told}
    smoothing = taken.get("pre_quant_scale")  # of each input
    return weight if smoothing is None else weight * smoothing.to(weight)


@torch.no_grad()
def current_weights(model: ModelPatcher, names: Iterable[str]) -> dict[str, Tensor]:
    """The MODEL's weights of these names, with patches baked in where there are some."""
    return {name: _weight(name, *patches) for name, patches in key_patches(model, names).items()}


def _weight(name: str, plain: tuple, *patches: tuple) -> Tensor:
    weight, convert = plain
    return baked(name, plain, *patches).to(weight.dtype) if patches else convert(weight, inplace=False)


def _usable(weight: Tensor) -> Tensor:
    """The same memory as a tensor that gradients go through: ComfyUI makes its weights in inference mode."""
    if not weight.is_inference():
        return weight
    place = weight.storage_offset(), weight.shape, weight.stride()
    return torch.empty(0, dtype=weight.dtype, device=weight.device).set_(weight.untyped_storage(), *place)


def other_changes(model: ModelPatcher, known: Collection[str] = ("model_sampling",)) -> Iterator[str]:
    """All that changes what the MODEL computes, beside weight patches and what is known, by name.

    `known` has names of options and object patches, and keys of wrappers and callbacks.
    """
    options = dict(model.model_options)
    inner = dict(options.pop("transformer_options", {}))
    replaced = inner.pop("patches_replace", {})
    yield from (f"the patch '{name}'" for name, patches in inner.pop("patches", {}).items() if patches)
    yield from (f"the replacement of '{name}'" for name, patches in replaced.items() if patches)
    yield from (f"the option '{name}'" for name in [*options, *inner] if name not in known)
    yield from (f"the object patch '{name}'" for name in model.object_patches if name not in known)
    yield from (f"the weight wrapper of '{name}'" for name in model.weight_wrapper_patches)
    for what, kinds in (("wrapper", model.wrappers), ("callback", model.callbacks)):
        for kind, by_key in kinds.items():
            keys = (key for key, functions in by_key.items() if functions and key not in known)
            yield from (f"the {what} '{key}' ({kind})" for key in keys)
    yield from (f"the injection '{name}'" for name in model.injections)
    yield from (f"the additional model '{name}'" for name in model.additional_models)
    if model.hook_patches or model.forced_hooks:
        yield "hooks (LoRAs that come and go)"


def baked_in(model: ModelPatcher) -> dict[str, str]:
    """What an action's header tells of the weight patches (LoRAs) that were baked in; empty without any."""
    keys = [key for key in model.patches if key.startswith(MODEL)]
    patches = [patch for key in keys for patch in model.patches[key]]
    if not patches:
        return {}
    told = {
        "weights": len(keys),
        "kinds": sorted({_kind(value) for _, value, *_ in patches}),
        "strengths": sorted({round(float(strength), 4) for strength, *_ in patches}),
    }
    return {"flash.baked_in": json.dumps(told)}


def _kind(value: object) -> str:
    if isinstance(value, tuple):
        return str(value[0]) if len(value) == 2 else "diff"
    return str(getattr(value, "name", type(value).__name__))


def loaded_from(patcher: ModelPatcher) -> str:
    """The name of the file that a model was loaded from, as far as ComfyUI knows it, else nothing."""
    _, args, *_ = patcher.cached_patcher_init or (None, ())
    return Path(next((arg for arg in args if isinstance(arg, str)), "")).stem

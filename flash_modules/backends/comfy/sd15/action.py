"""A learned action on ComfyUI's MODEL: motion, cross-frame attention, and trained keys and values."""

import logging
import re
from collections.abc import Mapping
from functools import partial

import comfy.lora
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....flash.action_file import Action, own_motion, plan_action
from ....flexiact.action_file import TransferAction
from .cross_frame import add_cross_frame_attention
from .motion import LoadedMotion, add_motion, hand_over
from .options import MOTION
from .places import check_sd15

_KV = re.compile(r"lora_unet_(down_blocks|mid_block|up_blocks)_\w*_attn[12]_to_[kv]")


def add_action(
    model: ModelPatcher,
    motion: LoadedMotion | None,
    action: Action | TransferAction | None,
    strength: float = 1.0,
) -> ModelPatcher:
    """A clone of the MODEL that animates: motion modules, cross-frame attention, and the action if given.

    Weights become base + strength * (trained - base), motion and keys and values alike. A standalone action
    brings its own motion module if none is given. Raises ValueError if the parts do not belong together.
    """
    if isinstance(action, TransferAction):
        raise ValueError(
            f"The action '{action.name}' was learned from one clip with FlexiAct, for {action.base}: connect "
            "it to Transfer Action."
        )
    check_sd15(model)
    if motion is None and action is None:
        raise ValueError(
            "Apply Action has nothing to apply: connect a motion module, or a standalone action."
        )
    loaded = motion or hand_over(partial(own_motion, action, strength))
    keys = kv_keys(model)
    plan = plan_action(action, strength, motion=motion, keys_values=partial(_keys_values, model, keys))
    for sentence in plan.warnings:
        logging.warning("FLASH: %s", sentence)
    m = add_cross_frame_attention(add_motion(model, loaded))
    (motion_patcher,) = m.get_additional_models_with_key(MOTION)
    kv_diffs = {keys[name]: diff for name, diff in plan.kv_diffs.items()}
    for patcher, diffs in ((motion_patcher, plan.motion_diffs), (m, kv_diffs)):
        if diffs:
            patcher.add_patches({name: ("diff", (diff,)) for name, diff in diffs.items()}, strength)
    return m


def kv_keys(model: ModelPatcher) -> dict[str, str]:
    """ComfyUI's names of all spatial keys and values, by their names in action files."""
    names: Mapping[str, str] = comfy.lora.model_lora_keys_unet(model.model, {})
    return {name: key for name, key in names.items() if _KV.fullmatch(name)}


def _keys_values(model: ModelPatcher, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """The checkpoint's spatial keys and values as loaded, without LoRAs, by their names in action files."""
    unpatched = model.get_key_patches("diffusion_model.")
    return {name: unpatched[key][0][0] for name, key in keys.items()}

"""A learned action on ComfyUI's MODEL: motion, cross-frame attention, and trained keys and values."""

import logging
import re
from collections.abc import Mapping

import comfy.lora
from comfy.model_patcher import ModelPatcher

from ....files.tensor_file import fingerprint
from ....flash.action_file import Action, check_kv_diffs, mismatches, motion_diffs, own_motion
from .cross_frame import add_cross_frame_attention
from .motion import LoadedMotion, add_motion, hand_over
from .options import MOTION

_KV = re.compile(r"lora_unet_(down_blocks|mid_block|up_blocks)_\w*_attn[12]_to_[kv]")


def add_action(
    model: ModelPatcher, motion: LoadedMotion | None, action: Action | None, strength: float = 1.0
) -> ModelPatcher:
    """A clone of the MODEL that animates: motion modules, cross-frame attention, and the action if given.

    Weights become base + strength * (trained - base), motion and keys and values alike. A standalone action
    brings its own motion module if none is given. Raises ValueError if the parts do not belong together.
    """
    own = motion is None
    if motion is None:
        if action is None:
            raise ValueError(
                "Apply Action has nothing to apply: connect a motion module, or a standalone action."
            )
        weights = own_motion(action, strength)
        motion = hand_over(lambda: weights)
    m = add_cross_frame_attention(add_motion(model, motion))
    if action is None or strength == 0.0:
        return m
    if not own:
        diffs = motion_diffs(action, motion.tensors, motion.sha256)
        (patcher,) = m.get_additional_models_with_key(MOTION)
        patcher.add_patches({name: ("diff", (diff,)) for name, diff in diffs.items()}, strength)
    m.add_patches(_kv_patches(m, action), strength)
    motion_sha256 = action.motion_module.sha256 if own else motion.sha256
    for sentence in mismatches(action, base_sha256=_base_sha256(model), motion_sha256=motion_sha256):
        logging.warning("FLASH: %s", sentence)
    return m


def _kv_patches(model: ModelPatcher, action: Action) -> dict[str, tuple]:
    keys = _kv_keys(model)
    weights = model.model.state_dict()
    check_kv_diffs(action, {name: weights[key] for name, key in keys.items()})
    return {keys[name]: ("diff", (diff,)) for name, diff in action.kv_diffs.items()}


def _kv_keys(model: ModelPatcher) -> dict[str, str]:
    """ComfyUI's names of all spatial keys and values, by their names in action files."""
    names: Mapping[str, str] = comfy.lora.model_lora_keys_unet(model.model, {})
    return {name: key for name, key in names.items() if _KV.fullmatch(name)}


def _base_sha256(model: ModelPatcher) -> str:
    """Fingerprint of the checkpoint's keys and values as loaded, without LoRAs."""
    unpatched = model.get_key_patches("diffusion_model.")
    return fingerprint({name: unpatched[key][0][0] for name, key in _kv_keys(model).items()})

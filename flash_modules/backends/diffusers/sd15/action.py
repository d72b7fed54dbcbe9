"""A learned action on diffusers' U-Net: motion, cross-frame attention, and trained keys and values."""

import logging
import re
from collections.abc import Mapping
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ....animatediff.motion_file import MotionWeights
from ....files.tensor_file import fingerprint
from ....flash.action_file import Action, check_kv_diffs, mismatches, motion_diffs, own_motion, spatial_key
from .cross_frame import add_cross_frame_attention
from .motion import AnimatedUNet, add_motion

_KV = re.compile(r"(?:down_blocks|mid_block|up_blocks)\..*\.attn[12]\.to_[kv]")


def add_action(
    unet: UNet2DConditionModel, motion: MotionWeights | None, action: Action | None, strength: float = 1.0
) -> AnimatedUNet:
    """A U-Net that animates: motion modules, cross-frame attention, and the action if there is one.

    Weights become base + strength * (trained - base), motion and keys and values alike. A standalone action
    brings its own motion module if none is given. Raises ValueError if the parts do not belong together.
    """
    if motion is not None:
        weights = motion
    elif action is not None:
        weights = own_motion(action, strength)
    else:
        raise ValueError("There is nothing to animate with: give a motion module, or a standalone action.")
    if action is None or strength == 0.0:
        return add_cross_frame_attention(add_motion(unet, weights))
    base = keys_values(unet)
    check_kv_diffs(action, base)
    diffs, motion_sha256 = {}, action.motion_module.sha256
    if motion is not None:
        diffs, motion_sha256 = motion_diffs(action, motion.tensors, motion.sha256), motion.sha256
    for sentence in mismatches(action, base_sha256=fingerprint(base), motion_sha256=motion_sha256):
        logging.warning("FLASH: %s", sentence)
    model = add_cross_frame_attention(add_motion(unet, weights))
    _add_diffs(dict(model.motion.named_parameters()), diffs, strength)
    model.undo.add(*(partial(_put_back, base[name], base[name].data) for name in action.kv_diffs))
    _add_diffs(base, action.kv_diffs, strength)
    return model


def keys_values(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Weights of all spatial keys and values, by their names in action files."""
    return {spatial_key(path): layer.weight for path, layer in unet.named_modules() if _KV.fullmatch(path)}


@torch.no_grad()
def _add_diffs(weights: Mapping[str, Tensor], diffs: Mapping[str, Tensor], strength: float) -> None:
    """Exchange the tensors of the weights; those they were loaded from stay as they are."""
    for name, diff in diffs.items():
        weight = weights[name]
        weight.data = (weight.float() + strength * diff.to(weight.device).float()).to(weight.dtype)


@torch.no_grad()
def _put_back(weight: Tensor, values: Tensor) -> None:
    weight.data = values.to(weight.device, weight.dtype)

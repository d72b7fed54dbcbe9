"""A learned action on diffusers' U-Net: motion, cross-frame attention, and trained keys and values."""

import logging
import re
from collections.abc import Mapping
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ....animatediff.motion_file import MotionWeights
from ....flash.action_file import Action, own_motion, plan_action, spatial_key
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
    weights = motion or own_motion(action, strength)
    base = keys_values(unet)
    plan = plan_action(action, strength, motion=motion, keys_values=lambda: base)
    for sentence in plan.warnings:
        logging.warning("FLASH: %s", sentence)
    model = add_cross_frame_attention(add_motion(unet, weights))
    _add_diffs(dict(model.motion.named_parameters()), plan.motion_diffs, strength)
    model.undo.add(*(partial(_put_back, base[name], base[name].data) for name in plan.kv_diffs))
    _add_diffs(base, plan.kv_diffs, strength)
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

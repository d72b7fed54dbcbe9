"""Cross-frame attention in ComfyUI's U-Net."""

import torch
from comfy.model_patcher import ModelPatcher

from ....flash.cross_frame import with_first_frame
from .options import CALL, CROSS_FRAME, MotionCall


def add_cross_frame_attention(model: ModelPatcher) -> ModelPatcher:
    """A clone whose self-attentions read [current frame; first frame]. The MODEL needs a motion.

    Where another node replaces a self-attention (perturbed or self-attention guidance), its word counts:
    those nodes expect as many keys as queries.
    """
    m = model.clone()
    m.set_model_attn1_patch(_cross_frame)
    m.model_options["transformer_options"][CROSS_FRAME] = True
    return m


@torch.compiler.disable  # see motion.py
def _cross_frame(tokens, keys, values, extra_options):
    call: MotionCall = extra_options[CALL]
    if extra_options["block"] in call.replaced:
        return tokens, keys, values
    keys_XMC = with_first_frame(keys, call.video.num_frames)
    values_XMC = keys_XMC if values is keys else with_first_frame(values, call.video.num_frames)
    return tokens, keys_XMC, values_XMC

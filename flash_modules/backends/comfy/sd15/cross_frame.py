"""Cross-frame attention in ComfyUI's U-Net."""

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher

from ....flash.cross_frame import with_first_frame
from .options import CALL, CROSS_FRAME, MotionCall
from .places import transformer_blocks


def add_cross_frame_attention(model: ModelPatcher) -> ModelPatcher:
    """A clone whose self-attentions read [current frame; first frame]. The MODEL needs a motion.

    Where another node replaces a self-attention (perturbed or self-attention guidance), its word counts:
    those nodes expect as many keys as queries.
    """
    m = model.clone()
    m.set_model_attn1_patch(_append_tokens)
    blocks = frozenset(transformer_blocks(model.get_model_object("diffusion_model")))
    m.model_options["transformer_options"][CROSS_FRAME] = blocks
    return m


def project_first_frame_once(options: dict) -> dict:
    """The options of one call, in which the first frame's keys and values are projected once, if they can be.

    A patch gets tokens, before their projection: each frame would project the first one's again. A
    replacement gets keys and values. It stands in blocks that nobody else replaces, and only for this call,
    so that every node still finds the place free; patches behind ours must see all tokens, and keep them.
    """
    patches = options.get("patches", {}).get("attn1_patch", [])
    if CROSS_FRAME not in options or patches[-1:] != [_append_tokens]:
        return options
    replaced = options.get("patches_replace", {})
    theirs = replaced.get("attn1", {})
    free = options[CROSS_FRAME] - {key[:2] for key in theirs}
    attn1 = {**theirs, **dict.fromkeys(free, _attend_to_first_frame)}
    return {**options, "patches_replace": {**replaced, "attn1": attn1}}


@torch.compiler.disable  # see motion.py
def _append_tokens(tokens, keys, values, extra_options):
    call: MotionCall = extra_options[CALL]
    if extra_options["block"] in call.replaced:
        return tokens, keys, values
    keys_XMC = with_first_frame(keys, call.video.num_frames)
    values_XMC = keys_XMC if values is keys else with_first_frame(values, call.video.num_frames)
    return tokens, keys_XMC, values_XMC


@torch.compiler.disable
def _attend_to_first_frame(q_XNC, k_XNC, v_XNC, extra_options):
    num_frames = extra_options[CALL].video.num_frames
    return optimized_attention(
        q_XNC,
        with_first_frame(k_XNC, num_frames),
        with_first_frame(v_XNC, num_frames),
        extra_options["n_heads"],
        attn_precision=extra_options["attn_precision"],
        transformer_options=extra_options,
    )

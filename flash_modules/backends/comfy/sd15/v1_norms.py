"""AnimateDiff v1's pooled norms in ComfyUI's U-Net, whose own modules stay as they are.

ResNets run part by part with their own layers; the output layers run once more on the last features.
"""

import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....animatediff.motion_module import pooled_norm
from .options import CALL, MOTION, MotionCall


@torch.compiler.disable  # see motion.py
def pooled_resnet(layer, features_XCHW: Tensor, emb, num_frames: int) -> Tensor:
    """ComfyUI's ResBlock with norms over all frames of a video."""
    h = _pooled(layer.in_layers, features_XCHW, num_frames)
    h = h + layer.emb_layers(emb).to(h.dtype)[..., None, None]
    return layer.skip_connection(features_XCHW) + _pooled(layer.out_layers, h, num_frames)


def pool_output(options: dict) -> dict:
    """The options of one call, in which `_pooled_output` is the innermost wrapper of the U-Net.

    A wrapper of another node (a cache of outputs) sees, and keeps, the pooled output, wherever it stands.
    """
    wrappers = options.get("wrappers", {})
    of_unet = {**wrappers.get(WrappersMP.DIFFUSION_MODEL, {}), MOTION: [_pooled_output]}
    return {**options, "wrappers": {**wrappers, WrappersMP.DIFFUSION_MODEL: of_unet}}


@torch.compiler.disable
def _pooled_output(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
    """A wrapper of the whole U-Net that exchanges its output for one with a pooled norm."""
    plain = executor(x, timesteps, context, y, control, transformer_options, **kwargs)
    call: MotionCall = transformer_options[CALL]
    if call.last_features_XCHW is None:  # a caching node skipped the U-Net
        return plain
    return _pooled(executor.class_obj.out, call.last_features_XCHW.to(plain.dtype), call.video.num_frames)


def _pooled(layers, features_XCHW: Tensor, num_frames: int) -> Tensor:
    norm, *others = layers
    h = pooled_norm(norm, features_XCHW, num_frames)
    for layer in others:
        h = layer(h)
    return h

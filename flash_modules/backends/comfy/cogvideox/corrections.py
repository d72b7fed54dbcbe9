"""What ComfyUI 0.33 gets wrong about CogVideoX-5b-I2V, put right on a clone.

ComfyUI knows the architecture for VOID's sake. It leaves out rotary positions beside the learned ones, scales
them by 1.875, gives the text no learned positions, and shows the model its noise unscaled. On small random
weights one forward pass differs from diffusers' by 8e-2, and each mistake alone makes more than 1e-3;
corrected it is 3e-7, and a run of 50 steps 8e-7.
"""

from functools import partial

import comfy.model_sampling
from comfy.ldm.cogvideo.model import CogVideoXPatchEmbed, CogVideoXTransformer3DModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from .kinds import check_model
from .run_check import check_run

CORRECTED = "flash_cogvideox"
"""In a MODEL's `transformer_options`: True once it is corrected. Also the key of its wrapper."""


class _VelocityDDPM(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """Predicts velocity, and sees latents in DDPM scale. ComfyUI's own class shows them unscaled."""


def corrected(model: ModelPatcher) -> ModelPatcher:
    """A clone that computes what CogVideoX-5b-I2V computes, for every sampler; the same MODEL if it does.

    Raises ValueError if the MODEL is another one.
    """
    check_model(model)
    if CORRECTED in model.model_options["transformer_options"]:
        return model
    m = model.clone()
    _correct(m)
    m.add_callback_with_key(CallbacksMP.ON_CLONE, CORRECTED, _on_clone)
    m.add_object_patch("model_sampling", _VelocityDDPM(m.model.model_config, zsnr=True))
    m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, CORRECTED, check_run)
    m.model_options["transformer_options"][CORRECTED] = True
    return m


def corrections(net: CogVideoXTransformer3DModel) -> dict[str, object]:
    """What the attributes of a transformer should be, by their paths in it."""
    return {
        "use_rotary_positional_embeddings": True,
        "spatial_interpolation_scale": 1.0,  # whole numbers at 720 x 480
        "patch_embed.forward": partial(_embed_with_text_positions, net.patch_embed),
    }


def _correct(m: ModelPatcher) -> None:
    for path, value in corrections(m.model.diffusion_model).items():
        m.add_object_patch(f"diffusion_model.{path}", value)


def _on_clone(model: ModelPatcher, m: ModelPatcher) -> None:
    if m.model is not model.model:  # a deep one, with weights of its own
        _correct(m)


def _embed_with_text_positions(embed: CogVideoXPatchEmbed, text_BNC: Tensor, latents_BFCHW: Tensor) -> Tensor:
    """Tokens of text and video, each with its learned position; ComfyUI gives the text none."""
    tokens_BNC = CogVideoXPatchEmbed.forward(embed, text_BNC, latents_BFCHW)
    num_text = text_BNC.shape[1]
    text_positions = embed.pos_embedding[:, :num_text].to(tokens_BNC)
    tokens_BNC[:, :num_text] += text_positions
    return tokens_BNC

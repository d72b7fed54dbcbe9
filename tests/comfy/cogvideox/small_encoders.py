"""A small VAE and a small T5, as ComfyUI's VAE and CLIP and as diffusers and transformers have them."""

from types import SimpleNamespace

import torch
from diffusers import AutoencoderKLCogVideoX
from transformers import T5Config, T5EncoderModel

from flash_pack.tests.backends.small_cogvideox import TEXT_WIDTH
from flash_pack.tests.backends.small_models import randomise

_SIZES = {"d_model": TEXT_WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
WORDS = 32128
"""That ComfyUI's tokenizer knows."""


def comfyui_vae(twin: AutoencoderKLCogVideoX):
    """ComfyUI's VAE with the same weights, narrower than it takes every CogVideoX VAE for."""
    import comfy.ldm.cogvideo.vae as core
    import comfy.sd

    whole = core.AutoencoderKLCogVideoX
    config = twin.config

    class Narrow(whole):
        def __init__(self, latent_channels: int):
            super().__init__(
                block_out_channels=config.block_out_channels,
                layers_per_block=config.layers_per_block,
                latent_channels=latent_channels,
                groups=config.norm_num_groups,
            )

    try:
        core.AutoencoderKLCogVideoX = Narrow
        weights = {name: weight.clone() for name, weight in twin.state_dict().items()}
        return comfy.sd.VAE(sd=weights, dtype=torch.float32)
    finally:
        core.AutoencoderKLCogVideoX = whole


def small_text_encoder() -> T5EncoderModel:
    """T5 as CogVideoX has it, but small."""
    return randomise(T5EncoderModel(T5Config(vocab_size=WORDS, feed_forward_proj="gated-gelu", **_SIZES)), 7)


def comfyui_clip(twin: T5EncoderModel):
    """ComfyUI's CLIP of the type cogvideox with the same weights."""
    import comfy.sd
    from comfy.text_encoders.cogvideo import CogVideoXTokenizer, cogvideo_te

    target = SimpleNamespace(params={}, clip=cogvideo_te(), tokenizer=CogVideoXTokenizer)
    options = {"t5xxl_model_config": {"vocab_size": WORDS, **_SIZES}, "dtype": torch.float32}
    clip = comfy.sd.CLIP(target, model_options=options)
    weights = {name: weight.clone() for name, weight in twin.state_dict().items()}
    missing, _ = clip.cond_stage_model.t5xxl.transformer.load_state_dict(weights, strict=False)
    assert not missing
    return clip

"""One small random Stable Diffusion 1.5, as ComfyUI's MODEL, CLIP and VAE and as diffusers' parts."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from flash_pack.flash_modules.backends.diffusers.sd15 import Base
from flash_pack.tests.backends.small_models import randomise

CONTEXT = 24
"""Width of the small U-Net's text."""
TEXT = {
    "hidden_size": CONTEXT,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
}
VAE_LAYOUT = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 64,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def diffusers_unet(model) -> UNet2DConditionModel:
    """diffusers' U-Net with the weights of the MODEL."""
    from comfy.utils import unet_to_diffusers

    config = model.model.model_config.unet_config
    unet = UNet2DConditionModel(
        block_out_channels=tuple(config["model_channels"] * m for m in config["channel_mult"]),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=config["context_dim"],
        attention_head_dim=config["num_heads"],
    )
    weights = model.model.diffusion_model.state_dict()
    names = unet_to_diffusers(config)
    unet.load_state_dict({theirs: weights[names[theirs]].clone() for theirs in unet.state_dict()})
    return unet.eval()


def text_encoder() -> CLIPTextModel:
    return randomise(CLIPTextModel(CLIPTextConfig(**TEXT, bos_token_id=49406)), 31)


def vae() -> AutoencoderKL:
    return randomise(
        AutoencoderKL(
            block_out_channels=(32,) * 4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=0.18215,
        ),
        32,
    )


def comfy_clip(theirs: CLIPTextModel):
    import comfy.sd
    import comfy.sd1_clip

    target = SimpleNamespace(
        params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer
    )
    small = partial(
        comfy.sd1_clip.SDClipModel, return_projected_pooled=False, textmodel_json_config=dict(TEXT)
    )
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, "clip_l_class": small})
    prefix = "clip_l.transformer.text_model."
    weights = {
        prefix + name.removeprefix("text_model."): weight.clone()
        for name, weight in theirs.state_dict().items()
    }
    missing, unexpected = clip.cond_stage_model.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if name.startswith(prefix)], missing
    return clip


def comfy_vae(theirs: AutoencoderKL):
    import comfy.sd

    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    config = {"params": {"ddconfig": VAE_LAYOUT, "embed_dim": 4}}
    return comfy.sd.VAE(sd=weights, config=config, dtype=torch.float32)


def diffusers_base(model, prediction: str = "epsilon") -> Base:
    from comfy import sd1_clip

    tokenizer = CLIPTokenizer.from_pretrained(Path(sd1_clip.__file__).parent / "sd1_tokenizer")
    return Base(
        unet=diffusers_unet(model),
        vae=vae(),
        text_encoder=text_encoder(),
        tokenizer=tokenizer,
        prediction=prediction,
    )


def write_clips(folder: Path, count: int = 2) -> Path:
    """Clips of a gradient that turns."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        frames = [Image.linear_gradient("L").rotate(90 * i + 20 * f).resize((64, 64)) for f in range(8)]
        frames[0].save(folder / f"{i}.gif", save_all=True, append_images=frames[1:], duration=125)
    return folder


def copies(patcher) -> dict[str, Any]:
    """All weights of a shared model, to be compared afterwards."""
    return {name: weight.clone() for name, weight in patcher.model.state_dict().items()}

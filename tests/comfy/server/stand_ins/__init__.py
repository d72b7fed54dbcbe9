"""Nodes for tests alone: text encoders and VAEs of CogVideoX and Wan are too large for a CPU."""

import zlib
from types import SimpleNamespace

import comfy.latent_formats
import comfy.ldm.cogvideo.vae
import comfy.model_base
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from comfy.text_encoders.cogvideo import CogVideoXTokenizer, cogvideo_te

from .wan import small_clip, small_vae


class Text:
    """What CLIP Text Encode asks of a CLIP; embeddings are noise, other for other words."""

    def tokenize(self, text: str) -> str:
        return text

    def encode_from_tokens_scheduled(self, text: str) -> list:
        draw = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return [[torch.randn(1, 226, 4096, generator=draw), {}]]


class Narrow(comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX):
    """Two channels where the true one has 128 to 512."""

    def __init__(self, latent_channels: int):
        widths = {"block_out_channels": (2,) * 4, "layers_per_block": 1, "groups": 2}
        super().__init__(latent_channels=latent_channels, **widths)
        randomise(self)


def randomise(module: torch.nn.Module) -> None:
    torch.manual_seed(6)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.5)


class StandInClip:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (Text(),)


class StandInVae:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        whole = comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX
        try:
            comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX = Narrow
            return (comfy.sd.VAE(sd=Narrow(16).state_dict()),)
        finally:
            comfy.ldm.cogvideo.vae.AutoencoderKLCogVideoX = whole


class StandInT5:
    """A small T5 behind ComfyUI's true tokenizer."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        target = SimpleNamespace(params={}, clip=cogvideo_te(), tokenizer=CogVideoXTokenizer)
        options = {"t5xxl_model_config": sizes, "dtype": torch.float32}
        clip = comfy.sd.CLIP(target, model_options=options)
        randomise(clip.cond_stage_model)
        return (clip,)


class StandInCogVideoX:
    """A small CogVideoX-5b-I2V of three layers, for 9 frames of 96 x 64."""

    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        settings = {"num_attention_heads": 3, "attention_head_dim": 16, "in_channels": 32, "num_layers": 3}
        settings |= {"sample_width": 12, "sample_height": 8, "sample_frames": 9, "time_embed_dim": 20}
        settings |= {"text_embed_dim": 32, "use_learned_positional_embeddings": True, "dtype": torch.float32}
        config = comfy.supported_models.CogVideoX_I2V({"image_model": "cogvideox", **settings})
        config.latent_format = comfy.latent_formats.CogVideoX1_5()
        config.set_inference_dtype(torch.float32, None)
        base = comfy.model_base.CogVideoX(config, image_to_video=True)
        randomise(base.diffusion_model)
        cpu = torch.device("cpu")
        return (comfy.model_patcher.CoreModelPatcher(base.eval(), cpu, cpu),)


class StandInWanVae:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("VAE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (small_vae(),)


class StandInUmt5:
    CATEGORY, FUNCTION, RETURN_TYPES = "tests", "make", ("CLIP",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return (small_clip(),)


NODE_CLASS_MAPPINGS = {
    "StandInWanVae": StandInWanVae,
    "StandInUmt5": StandInUmt5,
    "StandInClip": StandInClip,
    "StandInVae": StandInVae,
    "StandInT5": StandInT5,
    "StandInCogVideoX": StandInCogVideoX,
}

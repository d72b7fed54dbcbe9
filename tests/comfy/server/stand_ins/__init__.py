"""Nodes for tests alone: CogVideoX's text encoder and VAE are too large for a CPU, and have one size."""

import zlib

import comfy.ldm.cogvideo.vae
import comfy.sd
import torch


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
        torch.manual_seed(6)
        for weight in self.parameters():
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


NODE_CLASS_MAPPINGS = {"StandInClip": StandInClip, "StandInVae": StandInVae}

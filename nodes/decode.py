"""Nodes that turn latents into pictures."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.sd15 import detail_decode
from .sockets import Detail


class DetailDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_DetailDecode",
            display_name="Detail Decode (FLASH)",
            category="FLASH",
            description="VAE Decode that brings your picture's details into every frame: faces, hands, "
            "patterns, which a VAE alone blurs.",
            search_aliases=["vae decode", "detail", "sharpen", "restore", "face"],
            inputs=[
                io.Latent.Input("latents", tooltip="The video, from a FLASH sampler."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE, the one the decoder was trained for."),
                Detail.Input("decoder", tooltip="From Load Detail Decoder."),
                io.Image.Input("reference", tooltip="The picture that went into VAE Encode."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of the details: 0 = plain VAE Decode, 1 = as trained.",
                ),
                io.Boolean.Input(
                    "keep_first_frame",
                    default=True,
                    tooltip="Frame 0 is the picture itself, and not what the VAE makes of it.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The frames of the video.")],
        )

    @classmethod
    def execute(
        cls, latents: io.Latent.Type, vae, decoder, reference, strength: float, keep_first_frame: bool
    ) -> io.NodeOutput:
        return io.NodeOutput(
            detail_decode(vae, decoder, latents["samples"], reference, strength, keep_first=keep_first_frame)
        )

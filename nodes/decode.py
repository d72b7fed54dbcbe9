"""Nodes that turn latents into pictures."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.notes import show_notes
from ..flash_modules.backends.comfy.sd15 import PLAIN_DECODE, detail_decode, sampled_video
from ..flash_modules.flash.first_frame import PROMISE
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
            search_aliases=["vae decode", "decode video", "detail", "sharpen", "restore", "face"],
            inputs=[
                io.Latent.Input("latents", tooltip="The video, from a FLASH sampler."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE, the one the decoder was trained for."),
                Detail.Input(
                    "decoder",
                    optional=True,
                    tooltip="From Load Detail Decoder. Without one this is VAE Decode.",
                ),
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
                    default=False,
                    tooltip=f"{PROMISE.capitalize()} with this switch (then the step to frame 1 may show).",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The frames of the video.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, latents: io.Latent.Type, vae, reference, strength: float, keep_first_frame: bool, decoder=None
    ) -> io.NodeOutput:
        show_notes([] if decoder else [PLAIN_DECODE], cls.hidden)
        video = sampled_video(latents)
        return io.NodeOutput(
            detail_decode(vae, decoder, video, reference, strength, keep_first=keep_first_frame)
        )

"""Nodes that make and touch up latents."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.sd15 import sample_video, sampled_video
from ..flash_modules.flash.adain import AdaINConfig, adain
from ..flash_modules.flash.first_frame import PROMISE
from ..flash_modules.flash.sampling import SamplerConfig


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_Sampler",
            display_name="FLASH Video Sampler",
            category="FLASH",
            description="Animates a picture in one node, as in the paper: DDIM, clean first frame, AdaIN. "
            "Use First Frame and KSampler instead for other samplers.",
            search_aliases=["animate", "image to video", "img2vid", "i2v", "video", "ddim", "ksampler"],
            inputs=[
                io.Model.Input("model", tooltip="From Apply Action."),
                io.Conditioning.Input(
                    "positive", tooltip='What happens, for example "a person is shooting a soccer ball".'
                ),
                io.Conditioning.Input("negative", tooltip="What to avoid. May be an empty prompt."),
                io.Latent.Input(
                    "reference",
                    tooltip=f"Your picture, through VAE Encode: {PROMISE} with Detail Decode's "
                    "keep_first_frame.",
                ),
                io.Int.Input(
                    "frames",
                    default=SamplerConfig.num_frames,
                    min=2,
                    max=1024,
                    tooltip="Length of the video. Most motions know 16.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Other seed, other video.",
                ),
                io.Int.Input(
                    "steps",
                    default=SamplerConfig.steps,
                    min=1,
                    max=500,
                    tooltip="More steps, finer and slower.",
                ),
                io.Float.Input(
                    "cfg",
                    default=SamplerConfig.cfg,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How closely to follow the prompt.",
                ),
                io.Float.Input(
                    "adain_strength",
                    default=AdaINConfig.strength,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Keeps the colours of the first frame in all frames. 0 = off.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The video, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls, model, positive, negative, reference, frames, seed, steps, cfg, adain_strength
    ) -> io.NodeOutput:
        config = SamplerConfig(num_frames=frames, steps=steps, cfg=cfg)
        style = AdaINConfig(strength=adain_strength)
        video = sample_video(
            model, positive, negative, reference["samples"], seed=seed, config=config, style=style
        )
        return io.NodeOutput({"samples": video})


class AdaINLatents(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_AdaINLatents",
            display_name="AdaIN Latents (FLASH)",
            category="FLASH",
            description="Gives every frame the colour statistics of the first frame, against drift.",
            search_aliases=["color match", "colour drift", "adain", "normalize"],
            inputs=[
                io.Latent.Input("latents", tooltip="A video; its frame 0 is the example."),
                io.Float.Input(
                    "strength",
                    default=AdaINConfig.strength,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="0 = off, 1 = exactly the first frame's statistics.",
                ),
            ],
            outputs=[io.Latent.Output(tooltip="The video, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, latents: io.Latent.Type, strength: float) -> io.NodeOutput:
        style = AdaINConfig(strength=strength)
        return io.NodeOutput({**latents, "samples": adain(sampled_video(latents), style)})

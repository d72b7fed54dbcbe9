"""Nodes that give a MODEL motion and bind it to a picture."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.notes import show_notes
from ..flash_modules.backends.comfy.sd15 import (
    add_action,
    add_first_frame,
    add_motion,
    first_frame_notes,
    start_latents,
)
from ..flash_modules.flash.first_frame import PROMISE
from .sockets import Action, Motion


class ApplyMotionModule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_ApplyMotionModule",
            display_name="Apply Motion Module (FLASH)",
            category="FLASH",
            description="Plain AnimateDiff: motion modules and their noise schedule, for text-to-video. "
            "To animate a picture, use Apply Action instead.",
            search_aliases=["animatediff", "text to video", "txt2vid", "t2v", "video"],
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.5 checkpoint."),
                Motion.Input("motion", tooltip="From Load Motion Module."),
            ],
            outputs=[io.Model.Output(tooltip="Makes each latent batch one video.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, motion) -> io.NodeOutput:
        return io.NodeOutput(add_motion(model, motion))


class ApplyAction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_ApplyAction",
            display_name="Apply Action (FLASH)",
            category="FLASH",
            description="Makes a checkpoint animate: motion modules, cross-frame attention to the first "
            "frame, and the learned action if one is connected.",
            search_aliases=[
                "animatediff",
                "animate",
                "image to video",
                "img2vid",
                "i2v",
                "video",
                "human action",
                "motion",
            ],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion 1.5 checkpoint. LoRAs may come before or after."
                ),
                Motion.Input(
                    "motion",
                    optional=True,
                    tooltip="The motion module of the action's training. A standalone action can do without.",
                ),
                Action.Input(
                    "action",
                    optional=True,
                    tooltip="From Load Action. Without one, the motion is the module's own.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of the action: 0 = as if no action were connected, 1 = as trained, "
                    "above 1 = exaggerated.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="Connect it to First Frame, or to FLASH Video Sampler.")],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, strength: float, motion=None, action=None) -> io.NodeOutput:
        return io.NodeOutput(add_action(model, motion, action, strength))


class FirstFrame(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_FirstFrame",
            display_name="First Frame (FLASH)",
            category="FLASH",
            description="Makes a video start with your picture, which the model sees free of noise at every "
            f"step: {PROMISE} with Detail Decode's keep_first_frame. Works with every sampler.",
            search_aliases=[
                "image to video",
                "img2vid",
                "i2v",
                "video",
                "init image",
                "start frame",
                "reference",
            ],
            inputs=[
                io.Model.Input("model", tooltip="From Apply Action."),
                io.Latent.Input("reference", tooltip="Your picture, through VAE Encode."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=2,
                    max=1024,
                    tooltip="Length of the video. Most motions know 16.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Bound to this picture. Connect both outputs to the same sampler."),
                io.Latent.Output(
                    tooltip="Start latents of the video, for the sampler's latent_image at denoise 1."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(cls, model: io.Model.Type, reference: io.Latent.Type, frames: int) -> io.NodeOutput:
        bound = add_first_frame(model, reference["samples"])
        show_notes(first_frame_notes(bound, frames, cls.hidden), cls.hidden)
        return io.NodeOutput(bound, start_latents(reference["samples"], frames))

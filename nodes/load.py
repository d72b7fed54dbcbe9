"""Nodes that read files."""

from comfy_api.latest import io, ui

from ..flash_modules.animatediff.motion_file import VERSIONS
from ..flash_modules.backends.comfy.actions import load_action
from ..flash_modules.backends.comfy.folders import (
    ACTIONS,
    DECODERS,
    MOTIONS,
    check_model_file,
    model_files,
    model_path,
)
from ..flash_modules.backends.comfy.notes import show_text
from ..flash_modules.backends.comfy.pictures import as_image
from ..flash_modules.backends.comfy.sd15 import load_detail_decoder, load_motion
from .sockets import Action, Detail, Motion


class LoadMotionModule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LoadMotionModule",
            display_name="Load Motion Module (FLASH)",
            category="FLASH/loaders",
            description="Loads an AnimateDiff motion module for Stable Diffusion 1.5 from "
            "models/animatediff_models.",
            search_aliases=[
                "AnimateDiff Loader",
                "motion model",
                "video model",
                "v3_sd15_mm",
                "mm_sd_v15",
                "AnimateLCM",
            ],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=model_files(MOTIONS),
                    display_name="motion module",
                    tooltip="AnimateDiff v1, v2, v3 or AnimateLCM, or a diffusers MotionAdapter, from "
                    "models/animatediff_models. v3_sd15_mm is a good first choice.",
                ),
                io.Combo.Input(
                    "version",
                    options=["auto", *VERSIONS],
                    default="auto",
                    tooltip="What the file is. auto tells it from the file; choose yourself only if `found` "
                    "says it wrong.",
                    advanced=True,
                ),
            ],
            outputs=[
                Motion.Output(display_name="motion"),
                io.String.Output(
                    display_name="found", tooltip="What the file is: version, frames limit, number type."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file_name: str) -> bool | str:
        return check_model_file(MOTIONS, file_name)

    @classmethod
    def execute(cls, file_name: str, version: str) -> io.NodeOutput:
        motion = load_motion(model_path(MOTIONS, file_name), version)
        return io.NodeOutput(motion, motion.summary)


class LoadAction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LoadAction",
            display_name="Load Action (FLASH)",
            category="FLASH/loaders",
            description="Loads an action that was learned from a few clips (FLASH, for Apply Action) or from "
            "one (FlexiAct, for Transfer Action), from models/flash_actions.",
            search_aliases=["flash action", "flexiact", "motion lora", "human action"],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=model_files(ACTIONS),
                    display_name="action",
                    tooltip="A .safetensors file that this pack wrote, or a .pt file of FlexiAct, from "
                    "models/flash_actions.",
                ),
            ],
            outputs=[
                Action.Output(display_name="action"),
                io.String.Output(
                    display_name="prompt",
                    tooltip="The first prompt of its training: a good start for yours. FlexiAct's .pt files "
                    "hold none.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file_name: str) -> bool | str:
        return check_model_file(ACTIONS, file_name)

    @classmethod
    def execute(cls, file_name: str) -> io.NodeOutput:
        loaded = load_action(model_path(ACTIONS, file_name))
        show_text(loaded.text, cls.hidden)
        picture = loaded.label.thumbnail
        shown = ui.PreviewImage(as_image([picture])) if picture else None
        return io.NodeOutput(loaded.action, loaded.prompt, ui=shown)


class LoadDetailDecoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LoadDetailDecoder",
            display_name="Load Detail Decoder (FLASH)",
            category="FLASH/loaders",
            description="Loads a detail decoder, which keeps a picture's details in every frame, from "
            "models/flash_decoders.",
            search_aliases=["detail", "decoder", "vae", "sharpen", "restore"],
            inputs=[
                io.Combo.Input(
                    "file_name",
                    options=model_files(DECODERS),
                    display_name="decoder",
                    tooltip="A .safetensors file that was trained for your checkpoint's VAE, from "
                    "models/flash_decoders.",
                ),
            ],
            outputs=[
                Detail.Output(display_name="decoder"),
                io.String.Output(display_name="found", tooltip="Its levels, branches and the VAE it is for."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file_name: str) -> bool | str:
        return check_model_file(DECODERS, file_name)

    @classmethod
    def execute(cls, file_name: str) -> io.NodeOutput:
        detail = load_detail_decoder(model_path(DECODERS, file_name))
        return io.NodeOutput(detail, detail.weights.summary)

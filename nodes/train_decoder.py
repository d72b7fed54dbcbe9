"""The node that learns a detail decoder from clips."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.folders import check_clip_folder, clip_folder, clip_folders
from ..flash_modules.backends.comfy.learning.action_plan import lesson_state
from ..flash_modules.backends.comfy.learning.options import DTYPE_NAMES
from ..flash_modules.backends.comfy.sd15.train.learn_decoder import (
    BRANCHES,
    DecoderLesson,
    DecoderOptions,
    learn_decoder,
)
from ..flash_modules.flash.training.detail_training import DetailTrainingConfig
from ..flash_modules.flash.training.method import PRESETS
from .sockets import Detail
from .train_inputs import run_inputs


class LearnDetailDecoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LearnDetailDecoder",
            display_name="Learn Detail Decoder (FLASH)",
            category="FLASH/training",
            description="Learns once for a VAE to keep a picture's details in every frame; it serves all "
            "actions. Cancel saves, and queueing it again under the same run name goes on from there; a "
            "finished run gives its file at once.",
            search_aliases=["train", "training", "vae", "decoder", "detail", "sharpen", "face"],
            is_output_node=True,
            inputs=[*_inputs(), *_picture_inputs(), *run_inputs(DecoderOptions(), advanced=True)],
            outputs=[
                Detail.Output(
                    display_name="decoder", tooltip="For Detail Decode; it is in models/flash_decoders too."
                ),
                io.LossMap.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="sample",
                    tooltip="Rows of frames: true; what the VAE makes of distorted ones; what the decoder "
                    "makes of them; and what is left.",
                ),
                io.String.Output(display_name="report", tooltip="What was learned from what."),
            ],
        )

    @classmethod
    def validate_inputs(cls, clips: str) -> bool | str:
        return check_clip_folder(clips)

    @classmethod
    def fingerprint_inputs(cls, clips: str, run_name: str, **_: object) -> str:
        return lesson_state(clips, run_name)

    @classmethod
    def execute(cls, vae, clips: str, preset: str, steps: int, run_name: str, **options) -> io.NodeOutput:
        lesson = DecoderLesson(
            vae=vae,
            folder=clip_folder(clips),
            preset=preset,
            steps=steps,
            run_name=run_name,
            options=DecoderOptions(**options),
        )
        learned = learn_decoder(lesson)
        shown = learned.ui or None
        return io.NodeOutput(learned.detail, learned.losses, learned.sheet, learned.report, ui=shown)


def _inputs() -> list[io.Input]:
    return [
        io.Vae.Input("vae", tooltip="The VAE of your checkpoint; the decoder is for it alone."),
        io.Combo.Input(
            "clips",
            options=clip_folders(),
            tooltip="A folder in ComfyUI's input folder with clips of any actions: videos, GIF or WebP, or "
            "folders of pictures. The sharper they are, the more it learns.",
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="paper",
            tooltip="Size of the pictures: draft 256, balanced 384, paper 512 pixels. Smaller ones need less "
            "memory and time.",
        ),
        io.Int.Input(
            "steps",
            default=DetailTrainingConfig().loop.steps,
            min=1,
            max=1_000_000,
            tooltip="Of the training. A finished run goes on if you raise it.",
        ),
        io.String.Input(
            "run_name",
            default="my details",
            tooltip="Name of the run and of its file in models/flash_decoders. The same name goes on; other "
            "clips or settings need another name.",
        ),
    ]


def _picture_inputs() -> list[io.Input]:
    default = DecoderOptions()
    return [
        io.Int.Input(
            "size",
            default=default.size,
            min=0,
            max=1024,
            step=8,
            tooltip="Pixels of the square that is trained on; 0 = the preset's.",
            advanced=True,
        ),
        io.Int.Input(
            "frames_per_step",
            default=default.frames_per_step,
            min=1,
            max=31,
            tooltip="1 to 4, as memory allows.",
            advanced=True,
        ),
        io.Int.Input(
            "frames",
            default=default.frames,
            min=2,
            max=32,
            tooltip="Taken of a clip, of which a step draws some.",
            advanced=True,
        ),
        io.Int.Input(
            "width",
            default=default.width,
            min=1,
            max=1024,
            tooltip="Channels inside the branches.",
            advanced=True,
        ),
        io.Combo.Input(
            "branches",
            options=list(BRANCHES),
            default=default.branches,
            tooltip="Where details come from: near by (warping), anywhere (attention), or both.",
            advanced=True,
        ),
        io.Combo.Input(
            "dtype",
            options=list(DTYPE_NAMES),
            default=default.dtype,
            tooltip="Numbers of the computation; what learns is in fp32. auto = bf16 on CUDA, else fp32.",
            advanced=True,
        ),
        io.Int.Input(
            "sample_every",
            default=default.sample_every,
            min=1,
            max=1_000_000,
            tooltip="Steps of the training between two sample pictures.",
            advanced=True,
        ),
    ]

"""Nodes that learn an action on Wan 2.2, as a LoRA that core's own nodes load."""

from comfy_api.latest import io, ui

from ..flash_modules.backends.comfy.folders import check_clip_folder, clip_folder, clip_folder_state
from ..flash_modules.backends.comfy.learning.action_plan import lesson_state
from ..flash_modules.backends.comfy.wan.train.learn import learn_lora
from ..flash_modules.backends.comfy.wan.train.options import FPS, PIXELS, WanOptions
from ..flash_modules.backends.comfy.wan.train.plan import WanLesson
from ..flash_modules.backends.comfy.wan.train.preview import preview
from ..flash_modules.flash.training.noise_law import LAWS
from .sockets import TrainingWan
from .train_inputs import (
    clips_inputs,
    loop_inputs,
    memory_inputs,
    method_inputs,
    more_clips_inputs,
    sample_inputs,
    seed_input,
    unlisted,
)


class PreviewClipsWan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_PreviewClipsWan",
            display_name="Preview Clips (Wan) (FLASH)",
            category="FLASH/training",
            description="Shows, before anything is learned, what Learn Action (Wan) takes of each clip, "
            f"{FPS} frames a second of real time, with its augmented twin below it.",
            search_aliases=["dataset", "clips", "training data", "check videos"],
            is_output_node=True,
            is_input_list=True,
            inputs=[*clips_inputs(), *_shape_inputs(), *more_clips_inputs(TrainingWan, _OPTIONS)],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="Frames of the clips above their twins."),
                io.String.Output(display_name="report", tooltip="A line for each clip, and what to mend."),
            ],
        )

    @classmethod
    def validate_inputs(cls, clips: list[str], videos=()) -> bool | str:
        return True if videos else check_clip_folder(clips[0])

    @classmethod
    def fingerprint_inputs(cls, clips: list[str], **_: object) -> str:
        return clip_folder_state(clips[0])

    @classmethod
    def execute(cls, clips: list[str], **wishes) -> io.NodeOutput:
        sheet, report = preview(clip_folder(clips[0]), **unlisted(wishes))
        return io.NodeOutput(sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


class LearnActionWan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LearnActionWan",
            display_name="Learn Action (Wan) (FLASH)",
            category="FLASH/training",
            description="Learns an action from a few clips as a LoRA for Wan2.2 TI2V-5B. Cancel saves, and "
            "queueing it again under the same run name goes on from there; a finished run gives its file at "
            "once.",
            search_aliases=["train", "training", "motion lora", "few-shot", "finetune", "wan 2.2", "5b"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="Wan2.2 TI2V-5B, from Load Diffusion Model. A LoRA behind it is baked in; "
                    "ModelSamplingSD3 behind it sets the shift.",
                ),
                io.Clip.Input("clip", tooltip="UMT5-XXL, from Load CLIP with the type wan."),
                io.Vae.Input("vae", tooltip="Wan 2.2's own, from Load VAE."),
                *clips_inputs(),
                *_shape_inputs(),
                io.Int.Input(
                    "steps",
                    default=3000,
                    min=1,
                    max=1_000_000,
                    tooltip="Of the training. A finished run goes on if you raise it.",
                ),
                io.String.Input(
                    "run_name",
                    default="my action",
                    tooltip="Name of the run and of its file in models/loras. The same name goes on; other "
                    "clips or settings need another name.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture of yours that performs the action on the way.",
                ),
                *more_clips_inputs(TrainingWan, _OPTIONS),
            ],
            outputs=[
                io.LoraModel.Output(
                    display_name="lora", tooltip="For Load LoRA Model; it is in models/loras too."
                ),
                io.LossMap.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="sample",
                    tooltip="The latest video of your picture; before one, what is taken of the clips.",
                ),
                io.String.Output(display_name="report", tooltip="What was learned from what."),
                io.LossMap.Output(
                    display_name="exam",
                    tooltip="For Plot Loss Graph: how far it is off on clips or looks that it never saw.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, clips: list[str], videos=()) -> bool | str:
        return True if videos else check_clip_folder(clips[0])

    @classmethod
    def fingerprint_inputs(cls, clips: list[str], run_name: list[str], **_: object) -> str:
        return lesson_state(clips[0], run_name[0])

    @classmethod
    def execute(cls, clips: list[str], **wishes) -> io.NodeOutput:
        learned = learn_lora(WanLesson(folder=clip_folder(clips[0]), **unlisted(wishes)))
        told = learned.report
        return io.NodeOutput(learned.lora, told.losses, told.images, told.text, told.exam, ui=told.ui or None)


class TrainingOptionsWan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        default = WanOptions()
        return io.Schema(
            node_id="FLASH_TrainingOptionsWan",
            display_name="Training Options (Wan) (FLASH)",
            category="FLASH/training",
            description="Further settings of Learn Action (Wan). Their defaults are those without this node.",
            search_aliases=["learning rate", "checkpointing", "memory", "rank", "alignment", "seed"],
            inputs=[
                io.Int.Input(
                    "frames",
                    default=default.frames,
                    min=5,
                    max=121,
                    step=4,
                    tooltip=f"Taken of a clip at a time, {FPS} of them a second; of shorter clips, fewer.",
                ),
                *memory_inputs(default, "the self-attentions"),
                *sample_inputs(default),
                seed_input(default),
                *loop_inputs(default, "1e-4 is usual for a LoRA."),
                *_lora_inputs(default),
                *method_inputs(default),
            ],
            outputs=[TrainingWan.Output(display_name="options")],
        )

    @classmethod
    def execute(cls, **options) -> io.NodeOutput:
        return io.NodeOutput(WanOptions(**options))


_OPTIONS = "From Training Options (Wan), for other settings."


def _shape_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            name,
            default=default,
            min=PIXELS * 2,
            max=1280,
            step=PIXELS,
            tooltip="Pixels of the videos that are learned from; clips are cut to it. Smaller ones need less "
            "memory and time: 832 x 480 for good results, 512 x 288 for a first look.",
        )
        for name, default in (("width", 832), ("height", 480))
    ]


def _lora_inputs(default: WanOptions) -> list[io.Input]:
    return [
        io.Int.Input(
            "rank",
            default=default.rank,
            min=1,
            max=256,
            tooltip="Of the LoRA: how much it can hold.",
            advanced=True,
        ),
        io.Boolean.Input(
            "text",
            default=default.text,
            tooltip="Keys and values of the attentions to the text learn too, as in the paper's U-Net.",
            advanced=True,
        ),
        io.Combo.Input(
            "law",
            options=[*LAWS],
            default=default.law,
            tooltip="How often which noise is learned from: as the sampler meets it (shifted); the noisier "
            "half of its steps alone, where motion is made (high noise); the paper's (cosine, with alpha).",
            advanced=True,
        ),
        io.String.Input(
            "licence",
            default=default.licence,
            tooltip="Of the file, in its header: 'CC BY 4.0' for example.",
            advanced=True,
        ),
    ]

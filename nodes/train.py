"""Nodes that learn an action from clips."""

from comfy_api.latest import io, ui

from ..flash_modules.backends.comfy.folders import check_clip_folder, clip_folder, clip_folder_state
from ..flash_modules.backends.comfy.learning.action_plan import lesson_state
from ..flash_modules.backends.comfy.sd15.train.learn import learn_action
from ..flash_modules.backends.comfy.sd15.train.options import TrainingOptions
from ..flash_modules.backends.comfy.sd15.train.plan import Lesson
from ..flash_modules.backends.comfy.sd15.train.preview import preview
from ..flash_modules.flash.training.method import PRESETS
from ..flash_modules.training.loop import LoopConfig
from .sockets import Action, Motion, Training
from .train_inputs import (
    clips_inputs,
    memory_inputs,
    method_inputs,
    more_clips_inputs,
    run_inputs,
    sample_inputs,
    unlisted,
)


class PreviewClips(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_PreviewClips",
            display_name="Preview Clips (FLASH)",
            category="FLASH/training",
            description="Shows, before anything is learned, what Learn Action takes of each clip, with its "
            "augmented twin below it, and why other clips are left out.",
            search_aliases=["dataset", "clips", "training data", "check videos"],
            is_output_node=True,
            is_input_list=True,
            inputs=[*clips_inputs(), _preset_input(), *more_clips_inputs(Training, _OPTIONS)],
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


class LearnAction(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LearnAction",
            display_name="Learn Action (FLASH)",
            category="FLASH/training",
            description="Learns an action from a few clips. Cancel saves, and queueing it again under the "
            "same run name goes on from there; a finished run gives its file at once.",
            search_aliases=["train", "training", "motion lora", "few-shot", "finetune", "human action"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A Stable Diffusion 1.5 checkpoint. A LoRA behind it is baked in.",
                ),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                Motion.Input("motion", tooltip="From Load Motion Module: what the action is learned on."),
                *clips_inputs(),
                _preset_input(),
                io.Int.Input(
                    "steps",
                    default=LoopConfig.steps,
                    min=1,
                    max=1_000_000,
                    tooltip="Of the training. A finished run goes on if you raise it.",
                ),
                io.String.Input(
                    "run_name",
                    default="my action",
                    tooltip="Name of the run and of its file in models/flash_actions. The same name goes on; "
                    "other clips or settings need another name.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="A picture of yours that performs the action on the way.",
                ),
                *more_clips_inputs(
                    Training,
                    _OPTIONS,
                    Action.Input(
                        "start",
                        optional=True,
                        tooltip="An action that was learned before, to begin with: from Load Action.",
                    ),
                ),
            ],
            outputs=[
                Action.Output(
                    display_name="action", tooltip="For Apply Action; it is in models/flash_actions too."
                ),
                io.LossMap.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(display_name="sample", tooltip="The latest video of your picture."),
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
        learned = learn_action(Lesson(folder=clip_folder(clips[0]), **unlisted(wishes)))
        told = learned.report
        return io.NodeOutput(
            learned.action, told.losses, told.images, told.text, told.exam, ui=told.ui or None
        )


class TrainingOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        default = TrainingOptions()
        return io.Schema(
            node_id="FLASH_TrainingOptions",
            display_name="Training Options (FLASH)",
            category="FLASH/training",
            description="Further settings of Learn Action. Their defaults are those without this node.",
            search_aliases=["learning rate", "checkpointing", "memory", "alignment", "tau", "seed"],
            inputs=[
                *_size_inputs(default),
                *memory_inputs(default, "the motion layers"),
                *sample_inputs(default),
                *run_inputs(default),
                *method_inputs(default),
            ],
            outputs=[Training.Output(display_name="options")],
        )

    @classmethod
    def execute(cls, **options) -> io.NodeOutput:
        return io.NodeOutput(TrainingOptions(**options))


_OPTIONS = "From Training Options, for other settings."


def _preset_input() -> io.Input:
    return io.Combo.Input(
        "preset",
        options=list(PRESETS),
        default="paper",
        tooltip="Size of the pictures: draft 256, balanced 384, paper 512 pixels. Smaller ones need less "
        "memory and time.",
    )


def _size_inputs(default: TrainingOptions) -> list[io.Input]:
    return [
        io.Int.Input(
            "size",
            default=default.size,
            min=0,
            max=1024,
            step=8,
            tooltip="Pixels of the square that is trained on; 0 = the preset's.",
        ),
        io.Int.Input("frames", default=default.frames, min=2, max=32, tooltip="Taken of a clip at a time."),
    ]

"""Nodes that learn an action from clips."""

from comfy_api.latest import io, ui

from ..flash_modules.backends.comfy.cogvideox.train.options import OneClipOptions
from ..flash_modules.backends.comfy.folders import (
    check_clip_folder,
    clip_folder,
    clip_folder_state,
    clip_folders,
)
from ..flash_modules.backends.comfy.learning.options import DTYPE_NAMES, RunOptions
from ..flash_modules.backends.comfy.sd15.train.learn import learn_action, lesson_state
from ..flash_modules.backends.comfy.sd15.train.options import TrainingOptions
from ..flash_modules.backends.comfy.sd15.train.plan import Lesson
from ..flash_modules.backends.comfy.sd15.train.preview import preview
from ..flash_modules.flash.training.action_training import CHECKPOINTING
from ..flash_modules.flash.training.method import PRESETS, TRAINABLE
from ..flash_modules.training.loop import LoopConfig
from .sockets import Action, Motion, Training


def _clips_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "clips",
            options=clip_folders(),
            tooltip="A folder in ComfyUI's input folder with 4 to 16 clips of one action: videos, GIF or "
            "WebP, or folders of pictures. A text file beside a clip (a.txt for a.mp4) is its prompt.",
        ),
        io.String.Input(
            "prompt",
            default="",
            tooltip='What is seen in clips without a text file, "a person is jumping" for example. '
            "Empty = the folder's name.",
        ),
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default="paper",
            tooltip="Size of the pictures: draft 256, balanced 384, paper 512 pixels. Smaller ones need less "
            "memory and time.",
        ),
    ]


def _more_clips_inputs() -> list[io.Input]:
    return [
        Training.Input("options", optional=True, tooltip="From Training Options, for other settings."),
        io.Video.Input(
            "videos",
            optional=True,
            tooltip="Clips of other nodes, Load Video-Text for example: they take the place of the folder's.",
        ),
        io.String.Input(
            "texts",
            optional=True,
            force_input=True,
            tooltip="What is seen in each of the videos; an empty one stands for the prompt.",
        ),
    ]


def _unlisted(inputs: dict[str, list]) -> dict[str, object]:
    """Inputs of a node that takes lists, as they are: only the clips are many."""
    many = ("videos", "texts")
    return {name: values if name in many else values[0] for name, values in inputs.items()}


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
            inputs=[*_clips_inputs(), *_more_clips_inputs()],
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
        sheet, report = preview(clip_folder(clips[0]), **_unlisted(wishes))
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
                *_clips_inputs(),
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
                *_more_clips_inputs(),
                Action.Input(
                    "start",
                    optional=True,
                    tooltip="An action that was learned before, to begin with: from Load Action.",
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
        learned = learn_action(Lesson(folder=clip_folder(clips[0]), **_unlisted(wishes)))
        return io.NodeOutput(
            learned.action,
            learned.losses,
            learned.images,
            learned.report,
            learned.exam,
            ui=learned.ui or None,
        )


class TrainingOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_TrainingOptions",
            display_name="Training Options (FLASH)",
            category="FLASH/training",
            description="Further settings of Learn Action. Their defaults are those without this node.",
            search_aliases=["learning rate", "checkpointing", "memory", "alignment", "tau", "seed"],
            inputs=[
                *_memory_inputs(),
                *_sample_inputs(),
                *run_inputs(TrainingOptions()),
                *_method_inputs(),
                _exam_input(),
            ],
            outputs=[Training.Output(display_name="options")],
        )

    @classmethod
    def execute(cls, **options) -> io.NodeOutput:
        return io.NodeOutput(TrainingOptions(**options))


def _memory_inputs() -> list[io.Input]:
    default = TrainingOptions()
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
        io.Combo.Input(
            "checkpointing",
            options=list(CHECKPOINTING),
            default=default.checkpointing,
            tooltip="What is computed twice to save memory: nothing; the motion layers; or all blocks, "
            "slowest and with the least memory.",
        ),
        io.Combo.Input(
            "dtype",
            options=list(DTYPE_NAMES),
            default=default.dtype,
            tooltip="Numbers of the computation; what learns is in fp32. auto = bf16 on CUDA, else fp32.",
        ),
    ]


def _sample_inputs() -> list[io.Input]:
    default = TrainingOptions()
    return [
        io.Int.Input(
            "sample_every",
            default=default.sample_every,
            min=1,
            max=1_000_000,
            tooltip="Steps of the training between two sample videos.",
        ),
        io.Int.Input(
            "sample_steps",
            default=default.sample_steps,
            min=1,
            max=999,
            tooltip="Steps in which a sample is made.",
        ),
    ]


def run_inputs(default: RunOptions, advanced: bool | None = None) -> list[io.Input]:
    """What every run can be told; `advanced` is of the first two, and the others always are."""
    return [
        io.Int.Input(
            "seed",
            default=default.seed,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=False,  # a run goes on only with its own seed
            tooltip="Other seed, other draws.",
            advanced=advanced,
        ),
        io.Int.Input(
            "stride",
            default=default.stride,
            min=0,
            max=100,
            tooltip="Takes one of so many frames; 0 = spread over the whole clip.",
            advanced=advanced,
        ),
        *loop_inputs(default),
    ]


def loop_inputs(default: RunOptions | OneClipOptions) -> list[io.Input]:
    """What every training's loop can be told."""
    return [
        io.Float.Input(
            "learning_rate",
            default=default.learning_rate,
            min=1e-7,
            max=0.1,
            step=1e-6,
            round=False,
            tooltip=f"{default.learning_rate:g} is the paper's.",
            advanced=True,
        ),
        io.Float.Input(
            "cooldown",
            default=default.cooldown,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Share of the steps, the last ones, in which the rate falls to 0.",
            advanced=True,
        ),
        io.Int.Input(
            "accumulation",
            default=default.accumulation,
            min=1,
            max=64,
            tooltip="Draws of a step, which learns from their mean.",
            advanced=True,
        ),
        io.Int.Input(
            "save_steps",
            default=default.save_steps,
            min=1,
            max=100_000,
            tooltip="Steps between two checkpoints; one is written every 10 minutes in any case.",
            advanced=True,
        ),
        io.Int.Input(
            "keep",
            default=default.keep,
            min=1,
            max=100,
            tooltip="Checkpoints that are kept, beside the best.",
            advanced=True,
        ),
    ]


def _method_inputs() -> list[io.Input]:
    default = TrainingOptions()
    return [
        io.Int.Input(
            "pool",
            default=default.pool,
            min=1,
            max=1000,
            tooltip="Encoded versions of each clip.",
            advanced=True,
        ),
        io.Boolean.Input(
            "twins",
            default=default.twins,
            tooltip="Learn from pairs with augmented twins. Off needs tau 100 and p 0.",
            advanced=True,
        ),
        io.Float.Input(
            "tau",
            default=default.tau,
            min=0.0,
            max=100.0,
            step=1.0,
            tooltip="Percentile of motion above which channels are aligned; 100 = none.",
            advanced=True,
        ),
        io.Float.Input(
            "p",
            default=default.p,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Part of the attentions that take the original's correspondence; 0 = none.",
            advanced=True,
        ),
        io.Boolean.Input(
            "after_attention",
            default=default.after_attention,
            tooltip="Align after each temporal attention, and not after each motion module.",
            advanced=True,
        ),
        io.Boolean.Input(
            "exclude_first",
            default=default.exclude_first,
            tooltip="Leave the clean frame 0 out of the alignment.",
            advanced=True,
        ),
        io.Float.Input(
            "alpha",
            default=default.alpha,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="How much more often noisy timesteps are drawn; 0 = all alike.",
            advanced=True,
        ),
        io.Float.Input(
            "text_drop",
            default=default.text_drop,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Chance of the empty prompt in place of a clip's.",
            advanced=True,
        ),
        io.Combo.Input(
            "trainable",
            options=list(TRAINABLE),
            default=default.trainable,
            tooltip="Of the motion modules: their attentions, or all of it.",
            advanced=True,
        ),
        io.Boolean.Input(
            "relative_to_still",
            default=default.relative_to_still,
            optional=True,
            tooltip="Align channels that change more than those of a still clip with the same noise.",
            advanced=True,
        ),
        io.Boolean.Input(
            "first_frame_only",
            default=default.first_frame_only,
            optional=True,
            tooltip="Align the correspondence with the first frame alone.",
            advanced=True,
        ),
        io.Boolean.Input(
            "detach_source",
            default=default.detach_source,
            optional=True,
            tooltip="No gradient flows from the twin into what it takes from the clip.",
            advanced=True,
        ),
        io.Boolean.Input(
            "shared_noise",
            default=default.shared_noise,
            optional=True,
            tooltip="Give twins the noise of their clips.",
            advanced=True,
        ),
    ]


def _exam_input() -> io.Input:
    return io.Boolean.Input(
        "exam",
        default=TrainingOptions.exam,
        optional=True,
        tooltip="Keeps one clip of six aside (where there are 6 or more), and asks on the way how well "
        "it does on what it never saw.",
        advanced=True,
    )

"""The node that learns an action from one clip, on CogVideoX."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.cogvideox import (
    NONE,
    adapter_files,
    check_adapter_file,
    load_adapter_file,
)
from ..flash_modules.backends.comfy.cogvideox.train.learn import learn_from_one_clip, one_clip_state
from ..flash_modules.backends.comfy.cogvideox.train.options import MEMORY, OneClipOptions
from ..flash_modules.backends.comfy.cogvideox.train.plan import OneClipLesson
from ..flash_modules.backends.comfy.folders import check_input_file, input_file, input_videos
from ..flash_modules.flexiact.ref_adapter_file import STRENGTH
from ..flash_modules.flexiact.training.token_training import token_loop
from .sockets import Action
from .train_inputs import loop_inputs, seed_input


class LearnFromOneClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FLASH_LearnFromOneClip",
            display_name="Learn Action From One Clip (FLASH)",
            category="FLASH/training",
            description="Learns an action from one clip, once, for any picture (FlexiAct). Cancel saves, and "
            "queueing it again under the same run name goes on from there; a finished run gives its file at "
            "once.",
            search_aliases=["train", "training", "flexiact", "one-shot", "motion transfer", "cogvideo"],
            is_output_node=True,
            inputs=[*_inputs(), *_picture_inputs(), *_clip_inputs(), *_run_inputs()],
            outputs=[
                Action.Output(
                    display_name="action", tooltip="For Transfer Action; it is in models/flash_actions too."
                ),
                io.LossMap.Output(display_name="losses", tooltip="For Plot Loss Graph."),
                io.Image.Output(
                    display_name="sample",
                    tooltip="The latest video of your picture; before one, what is taken of the clip.",
                ),
                io.String.Output(display_name="report", tooltip="What was learned from what."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str, ref_adapter: str, video: bool | None = False) -> bool | str:
        found = True if video is None else check_input_file(file)  # None is a link
        return check_adapter_file(ref_adapter) if found is True else found

    @classmethod
    def fingerprint_inputs(cls, file: str, run_name: str, **_: object) -> str:
        return one_clip_state(file, run_name)

    @classmethod
    def execute(
        cls, model, clip, vae, file, prompt, steps, run_name, ref_adapter, adapter_strength,
        video=None, image=None, **options,
    ) -> io.NodeOutput:  # fmt: skip
        lesson = OneClipLesson(
            model=model,
            clip=clip,
            vae=vae,
            file=input_file(file),
            prompt=prompt,
            steps=steps,
            run_name=run_name,
            video=video,
            image=image,
            adapter=load_adapter_file(ref_adapter),
            adapter_strength=adapter_strength,
            options=OneClipOptions(**options),
        )
        learned = learn_from_one_clip(lesson)
        return io.NodeOutput(
            learned.action, learned.losses, learned.images, learned.report, ui=learned.ui or None
        )


def _inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="From Load CogVideoX I2V. A LoRA behind it is baked in."),
        io.Clip.Input("clip", tooltip="T5-XXL, from Load CLIP with the type cogvideox."),
        io.Vae.Input("vae", tooltip="CogVideoX's own, from Load VAE."),
        io.Combo.Input(
            "file",
            options=input_videos(),
            upload=io.UploadType.video,
            display_name="clip file",
            tooltip="A video, GIF or WebP in ComfyUI's input folder that shows the action once, in 2 to 6 "
            "seconds. 49 frames of it are taken.",
        ),
        io.String.Input(
            "prompt",
            default="",
            multiline=True,
            tooltip="What is seen in the clip: who it is, and how they move, in two or three sentences. "
            "Prompts for pictures should resemble it.",
        ),
        io.Int.Input(
            "steps",
            default=token_loop().steps,
            min=1,
            max=1_000_000,
            tooltip="Of the training; the paper takes 1,500 to 3,000. Raise it, and a finished run goes on.",
        ),
        io.String.Input(
            "run_name",
            default="my action",
            tooltip="Name of the run and of its file in models/flash_actions. The same name goes on; "
            "another clip or other settings need another name.",
        ),
    ]


def _picture_inputs() -> list[io.Input]:
    default = OneClipOptions()
    return [
        io.Video.Input(
            "video", optional=True, tooltip="A clip of another node: it takes the place of the file."
        ),
        io.Image.Input(
            "image", optional=True, tooltip="A picture of yours that performs the action on the way."
        ),
        io.Combo.Input(
            "ref_adapter",
            options=adapter_files(),
            default=NONE,
            display_name="RefAdapter",
            tooltip="Lets your picture perform the action though its layout differs from the clip's; nothing "
            "is learned with it. refnetlora_step40000_model.pt, from models/loras.",
        ),
        io.Float.Input(
            "adapter_strength",
            default=STRENGTH,
            min=0.0,
            max=2.0,
            step=0.05,
            tooltip="How much of the RefAdapter. 0.7 is what its authors use.",
            advanced=True,
        ),
        io.Int.Input(
            "sample_every",
            default=default.sample_every,
            min=1,
            max=1_000_000,
            tooltip="Steps of the training between two samples.",
            advanced=True,
        ),
        io.Int.Input(
            "sample_steps",
            default=default.sample_steps,
            min=1,
            max=1000,
            tooltip="Steps in which a sample is made.",
            advanced=True,
        ),
    ]


def _clip_inputs() -> list[io.Input]:
    default = OneClipOptions()
    return [
        io.Float.Input(
            "start",
            default=default.start,
            min=0.0,
            max=100_000.0,
            step=0.1,
            tooltip="Seconds of the clip, where the action begins.",
        ),
        io.Float.Input(
            "end",
            default=default.end,
            min=0.0,
            max=100_000.0,
            step=0.1,
            tooltip="Seconds, where it ends; 0 = at the clip's end.",
        ),
        io.Combo.Input(
            "memory",
            options=list(MEMORY),
            default=default.memory,
            tooltip="How much it may take; the result is the same. auto = the fastest that fits; usual "
            "computes blocks twice; less keeps their inputs in the computer's memory, little their weights, "
            "least both.",
        ),
    ]


def _run_inputs() -> list[io.Input]:
    default = OneClipOptions()
    return [
        seed_input(default, advanced=True),
        *loop_inputs(default),
        io.Int.Input(
            "tokens",
            default=default.tokens,
            min=1,
            max=1024,
            tooltip="Of each layer: what the action is kept in. 226 is the paper's.",
            advanced=True,
        ),
    ]

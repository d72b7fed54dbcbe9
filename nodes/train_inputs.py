"""Inputs that nodes which learn have in common."""

from comfy_api.latest import io

from ..flash_modules.backends.comfy.cogvideox.train.options import OneClipOptions
from ..flash_modules.backends.comfy.folders import clip_folders
from ..flash_modules.backends.comfy.learning.action_options import ActionOptions
from ..flash_modules.backends.comfy.learning.options import DTYPE_NAMES, RunOptions
from ..flash_modules.flash.training.method import TRAINABLE
from ..flash_modules.flash.training.settings import CHECKPOINTING


def clips_inputs() -> list[io.Input]:
    """What is learned from."""
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
    ]


def more_clips_inputs(training: type[io.ComfyTypeIO], tooltip: str, *others: io.Input) -> list[io.Input]:
    """Options from a node of the `training` kind, clips of other nodes, the `others`, and twins of clips."""
    return [
        training.Input("options", optional=True, tooltip=tooltip),
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
        *others,
        io.Video.Input(  # the newest: the last one, so that workflows from before load as they are
            "twins",
            optional=True,
            tooltip="The same motions in other looks, frame by frame, as any restyling workflow makes them: "
            "one of each clip, in the same order. They take the place of the blurred and recoloured twins.",
        ),
    ]


def unlisted(inputs: dict[str, list]) -> dict[str, object]:
    """Inputs of a node that takes lists, as they are: only the clips are many."""
    many = ("videos", "texts", "twins")
    return {name: values if name in many else values[0] for name, values in inputs.items()}


def memory_inputs(default: RunOptions, motion: str) -> list[io.Input]:
    """What saves memory; `motion` are the layers that checkpointing begins with."""
    return [
        io.Combo.Input(
            "checkpointing",
            options=list(CHECKPOINTING),
            default=default.checkpointing,
            tooltip=f"What is computed twice to save memory: nothing; {motion}; or all blocks, slowest and "
            "with the least memory.",
        ),
        io.Combo.Input(
            "dtype",
            options=list(DTYPE_NAMES),
            default=default.dtype,
            tooltip="Numbers of the computation; what learns is in fp32. auto = bf16 on CUDA, else fp32.",
        ),
    ]


def sample_inputs(default: ActionOptions) -> list[io.Input]:
    """When and how samples are made."""
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
        seed_input(default, advanced),
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


def seed_input(default: RunOptions | OneClipOptions, advanced: bool | None = None) -> io.Input:
    """Where draws begin."""
    return io.Int.Input(
        "seed",
        default=default.seed,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=False,  # a run goes on only with its own seed
        tooltip="Other seed, other draws.",
        advanced=advanced,
    )


def loop_inputs(default: RunOptions | OneClipOptions, rate: str = "") -> list[io.Input]:
    """What every training's loop can be told; `rate` is said of the learning rate."""
    return [
        io.Float.Input(
            "learning_rate",
            default=default.learning_rate,
            min=1e-7,
            max=0.1,
            step=1e-6,
            round=False,
            tooltip=rate or f"{default.learning_rate:g} is the paper's.",
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


def method_inputs(default: ActionOptions) -> list[io.Input]:
    """The method, as far as the base has such options."""
    every: list[io.Input] = [
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
            default=getattr(default, "after_attention", None),
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
            default=getattr(default, "trainable", None),
            tooltip="Of the motion modules: their attentions, or all of it.",
            advanced=True,
        ),
        io.Boolean.Input(
            "relative_to_still",
            default=getattr(default, "relative_to_still", None),
            optional=True,
            tooltip="Align channels that change more than those of a still clip with the same noise.",
            advanced=True,
        ),
        io.Boolean.Input(
            "first_frame_only",
            default=getattr(default, "first_frame_only", None),
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
        io.Boolean.Input(
            "exam",
            default=default.exam,
            optional=True,
            tooltip="Keeps one clip of six aside (where there are 6 or more), and asks on the way how well "
            "it does on what it never saw.",
            advanced=True,
        ),
    ]
    return [one for one in every if hasattr(default, one.id)]

"""A training from a node: checked, gone on with, shown, saved whatever ends it, given back as an action."""

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_execution.graph_utils import ExecutionBlocker
from einops import rearrange
from PIL import Image, ImageSequence
from torch import Tensor

from .....animatediff.motion_module import check_num_frames
from .....files.json_file import read_json
from .....files.whole import write_text
from .....flash.action_file import Action, read_action
from .....flash.sampling import SamplerConfig
from .....flash.training.action_training import ActionTraining, ActionTrainingConfig, run_settings
from .....flash.training.method_settings import as_begun
from .....training.clips import Clips, clip_hashes, find_clips
from .....training.run_folder import SETTINGS, Progress, RunFolder, read_losses
from ...folders import ACTIONS, RUNS, clip_folder_state, written_path
from ..motion import LoadedMotion
from .action import ComfyHost
from .encode import check_clip, check_vae, encoder_fingerprints
from .needs import check_memory, out_of_memory, used_memory
from .options import TrainingOptions
from .own_weights import base_fingerprint, check_learnable
from .result import Result, run_id
from .show import NodeDisplay, as_output, newest_sample, write_sample

_ENCODERS = "encoders.json"
"""In a run's folder: what the VAE and the text encoder are known by, which a graph may change alone."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the node is asked to learn."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE
    motion: LoadedMotion
    folder: Path
    """With clips of one action."""
    prompt: str
    """Of clips without a text beside them; empty = the folder's name."""
    preset: str
    steps: int
    run_name: str
    options: TrainingOptions | None = None
    image: Tensor | None = None
    """A picture (1, H, W, 3) in [0, 1] that performs the action on the way."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What the node gives."""

    action: Action
    losses: dict[str, list[float]]
    """As core's Plot Loss Graph takes them."""
    images: Tensor | ExecutionBlocker
    """The latest sample; without one, what stands behind it does not run."""
    report: str
    ui: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A lesson with all that is known of it before a model is loaded."""

    lesson: Lesson
    options: TrainingOptions
    config: ActionTrainingConfig
    clips: Clips
    settings: Mapping[str, Any]
    result: Result

    @property
    def folder(self) -> Path:
        return written_path(RUNS, self.lesson.run_name)

    @property
    def goes_on(self) -> bool:
        return (self.folder / SETTINGS).is_file()

    @property
    def sample_prompt(self) -> str:
        """Of the picture that performs the action on the way."""
        return self.lesson.prompt.strip() or self.clips.used[0].caption

    def open_run(self) -> RunFolder:
        """The run's folder. Raises ValueError if it was begun with other settings or models."""
        run = RunFolder(self.folder.parent, self.lesson.run_name, self.settings)
        _check_encoders(run.path / _ENCODERS, self.lesson)
        return run


def learn_action(lesson: Lesson) -> Learned:
    """Learn, from where the run of that name is; a finished run gives its file, and no model is loaded.

    Cancel saves the last whole step and an action of it, and the same lesson goes on from there. Raises
    ValueError, with a sentence, for what cannot be learned.
    """
    with torch.inference_mode(False), torch.enable_grad():
        plan = _plan(lesson)
        newest = plan.open_run().checkpoints()[:1] if plan.goes_on else []
        steps = plan.result.steps()
        if steps is not None and newest and steps == newest[0] >= plan.config.loop.steps:
            return _learned(plan, steps)
        with _training_alone():
            return _learned(plan, _train(plan))


def _plan(lesson: Lesson) -> _Plan:
    check_learnable(lesson.model)
    check_clip(lesson.clip)
    check_vae(lesson.vae)
    options = lesson.options or TrainingOptions()
    config = options.config(lesson.preset, lesson.steps, comfy.model_management.get_torch_device())
    config = _as_begun(config, lesson)
    check_num_frames(lesson.motion.config, config.sampling.num_frames)
    clips = find_clips([lesson.folder], [lesson.prompt] if lesson.prompt.strip() else [])
    models = {"base": base_fingerprint(lesson.model), "motion_module": lesson.motion.sha256}
    hashed = list(zip(clips.used, clip_hashes(clips.used), strict=True))
    settings = run_settings(hashed, models, config, config.loop.accumulation)
    result = Result(written_path(ACTIONS, f"{lesson.run_name}.safetensors"), run_id(settings))
    return _Plan(lesson=lesson, options=options, config=config, clips=clips, settings=settings, result=result)


def _as_begun(config: ActionTrainingConfig, lesson: Lesson) -> ActionTrainingConfig:
    """With what the run has, if there is one, where no options of the lesson say it."""
    settings = written_path(RUNS, lesson.run_name) / SETTINGS
    if not settings.is_file():
        return config
    then, said = read_json(settings).get("method"), lesson.options is not None
    return replace(config, method=as_begun(config.method, then, keep_frames=said))


def _check_encoders(file: Path, lesson: Lesson) -> None:
    """Raise ValueError if the run was begun with another VAE or text encoder; the first time, note them."""
    found = encoder_fingerprints(lesson.vae, lesson.clip)
    if not file.is_file():
        write_text(file, json.dumps(found, indent=2) + "\n")
        return
    known = json.loads(file.read_text(encoding="utf-8"))
    others = [name for name, sha256 in found.items() if known.get(name) != sha256]
    if others:
        raise ValueError(
            f"The run '{lesson.run_name}' was begun with another {' and another '.join(others)}: connect the "
            "one from then, or give the run another name."
        )


@contextmanager
def _training_alone() -> Iterator[None]:
    """ComfyUI knows that something trains, its models are off the device; afterwards all is given back."""
    before = comfy.model_management.in_training
    _unload_models()
    comfy.model_management.in_training = True
    try:
        yield
    finally:
        comfy.model_management.in_training = before
        gc.collect()
        comfy.model_management.soft_empty_cache()


def _unload_models() -> None:
    with torch.inference_mode():
        comfy.model_management.unload_all_models()


def _train(plan: _Plan) -> int:
    """The step that the action in the file has learned."""
    lesson, loop = plan.lesson, plan.config.loop
    host = ComfyHost(
        lesson.model, lesson.clip, lesson.vae, lesson.motion, plan.config, header=plan.result.header
    )
    training = ActionTraining(host, plan.clips.used, plan.config)
    training.embeds(plan.sample_prompt)
    _unload_models()  # the text encoder is needed no more
    if not plan.goes_on:  # a run that goes on has shown that it fits
        check_memory(training)
    run = plan.open_run()
    display = NodeDisplay(loop.steps, len(training.pool(run.path)), partial(used_memory, training))
    sitting = _Sitting(plan, training, display)
    try:
        end = training.run(run, on_entry=display.entry, on_step=sitting.step, on_note=display.say)
    except comfy.model_management.InterruptProcessingException:
        if sitting.last_step:  # in this sitting; before its first step the file is as it should be
            training.write(plan.result.path, sitting.last_step, standalone=False)
        raise
    except comfy.model_management.OOM_EXCEPTION as error:
        raise out_of_memory(training) from error
    training.write(plan.result.path, end.step, standalone=False)
    return end.step


@dataclass
class _Sitting:
    """What is seen of a training while it goes on."""

    plan: _Plan
    training: ActionTraining[ComfyHost]
    display: NodeDisplay
    last_step: int = 0

    def step(self, progress: Progress) -> None:
        self.last_step = progress.step
        self.display.step(progress)
        at_the_end = progress.step == self.plan.config.loop.steps
        if self.plan.lesson.image is not None and (
            at_the_end or progress.step % self.plan.options.sample_every == 0
        ):
            self._sample(self.plan.lesson.image, progress.step)

    def _sample(self, image_BHWC: Tensor, step: int) -> None:
        config = self.plan.config
        picture_1HWC = _square(image_BHWC[:1, ..., :3].clone(), config.method.augment.size)
        sampler = SamplerConfig(num_frames=config.sampling.num_frames, steps=self.plan.options.sample_steps)
        with torch.no_grad():
            frames = self.training.animate(picture_1HWC, self.plan.sample_prompt, config.seed, sampler)
            path = write_sample(self.plan.lesson.run_name, step, frames)
        self.display.show(as_output(path))


def _square(image_1HWC: Tensor, size: int) -> Tensor:
    """The picture, cut to the centre and resized."""
    image_1CHW = rearrange(image_1HWC, "1 h w c -> 1 c h w")
    scaled_1CHW = comfy.utils.common_upscale(image_1CHW, size, size, "lanczos", "center")
    return rearrange(scaled_1CHW, "1 c h w -> 1 h w c")


def _learned(plan: _Plan, step: int) -> Learned:
    losses = read_losses(plan.folder / "loss.csv")
    sample = newest_sample(plan.lesson.run_name) if plan.lesson.image is not None else None
    return Learned(
        action=read_action(plan.result.path),
        # Plot Loss Graph divides by the range of the losses
        losses={"loss": losses if len(set(losses)) > 1 else [*losses, 0.0]},
        images=ExecutionBlocker(None) if sample is None else _read_frames(sample),
        report="\n".join(_report(plan, step, losses)),
        ui=as_output(sample),
    )


def _report(plan: _Plan, step: int, losses: list[float]) -> Iterator[str]:
    config, loop = plan.config, plan.config.loop
    size = config.method.augment.size
    ended = "" if step >= loop.steps else " (stopped; queue it again to go on)"
    yield (
        f"Learned {step} of {loop.steps} steps{ended} from {len(plan.clips.used)} clips, "
        f"{config.sampling.num_frames} frames of {size} x {size}."
    )
    part = max(1, len(losses) // 10)
    first, last = (sum(part_) / len(part_) for part_ in (losses[:part], losses[-part:]))
    yield f"Loss: {first:.4f} in the first tenth, {last:.4f} in the last."
    for prompt in dict.fromkeys(clip.caption for clip in plan.clips.used):
        yield f"Prompt: {prompt}"
    for skipped in plan.clips.skipped:
        yield f"Left out {skipped.path.name}: {skipped.reason}"
    yield f"Action: {plan.result.path.name} in models/{ACTIONS}; the run itself in models/{RUNS}."


def _read_frames(path: Path) -> Tensor:
    """The pictures (F, H, W, 3) in [0, 1] of an animated file."""
    with Image.open(path) as file:
        pictures = [picture.convert("RGB") for picture in ImageSequence.Iterator(file)]
    values = [torch.frombuffer(bytearray(one.tobytes()), dtype=torch.uint8) for one in pictures]
    width, height = pictures[0].size
    return torch.stack(values).reshape(len(values), height, width, 3).float() / 255


def lesson_state(folder_name: str, run_name: str) -> str:
    """Changes when the clips do, and when the run has gone on: then the node must look again."""
    checkpoints = written_path(RUNS, run_name).glob("checkpoint-*")
    return f"{clip_folder_state(folder_name)} {sorted(path.name for path in checkpoints)}"

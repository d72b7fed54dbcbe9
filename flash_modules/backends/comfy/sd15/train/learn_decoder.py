"""A training of details from a node: checked, gone on with, shown, saved whatever ends it, given back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import comfy.model_management
import torch
from comfy.sd import VAE
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .....flash.training.detail_training import (
    DetailHost,
    DetailTraining,
    DetailTrainingConfig,
    detail_settings,
)
from .....flash.training.method import PRESETS
from .....training.clips import Clips, clip_hashes, find_clips
from .....training.run_folder import SETTINGS, Progress, RunFolder, check_run_name, read_losses
from ...folders import DECODERS, RUNS, written_path
from ...learning.alone import train_and_write, training_alone
from ...learning.needs import used_memory
from ...learning.options import RunOptions, dtype_of
from ...learning.report import how_it_ended, left_out, loss_map, losses_in_words
from ...learning.result import Result, run_id
from ...learning.show import NodeDisplay, as_output, newest_sample, read_frames, write_sheet
from ..detail import LoadedDetail, detail_channels, load_detail_decoder
from .detail import ComfyVae, vae_signature
from .encode import check_vae
from .needs import detail_needs, out_of_detail_memory

Branches = Literal["both", "warping", "attention"]
BRANCHES: tuple[Branches, ...] = get_args(Branches)

_DEFAULT = DetailTrainingConfig()


@dataclass(frozen=True, kw_only=True)
class DecoderOptions(RunOptions):
    """All that most users need not touch; the same defaults as on the command line."""

    frames_per_step: int = _DEFAULT.frames
    width: int = _DEFAULT.width
    branches: Branches = "both"
    """What brings the details: both, or one of them alone."""
    learning_rate: float = _DEFAULT.loop.learning_rate
    cooldown: float = _DEFAULT.loop.cooldown

    def config(self, preset: str, steps: int, device: torch.device) -> DetailTrainingConfig:
        """The training that these describe. Raises ValueError, in a sentence, for what cannot be."""
        return DetailTrainingConfig(
            size=self.size or PRESETS[preset],
            frames=self.frames_per_step,
            width=self.width,
            warping=self.branches != "attention",
            attention=self.branches != "warping",
            sampling=self.sampling,
            loop=self.loop(steps),
            seed=self.seed,
            dtype=dtype_of(self.dtype, device),
        )


@dataclass(frozen=True, kw_only=True)
class DecoderLesson:
    """What the node is asked to learn."""

    vae: VAE
    folder: Path
    """With clips of any actions."""
    preset: str
    steps: int
    run_name: str
    options: DecoderOptions


@dataclass(frozen=True, kw_only=True)
class LearnedDecoder:
    """What the node gives."""

    detail: LoadedDetail
    losses: dict[str, list[float]]
    """As core's Plot Loss Graph takes them."""
    sheet: Tensor | ExecutionBlocker
    """The latest sample (1, H, W, 3) in [0, 1]; where there is none, what stands behind it does not run."""
    report: str
    ui: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A lesson with all that is known of it before anything is trained."""

    lesson: DecoderLesson
    config: DetailTrainingConfig
    clips: Clips
    hashes: Sequence[str]
    """Of the clips that are used."""
    settings: Mapping[str, Any]
    result: Result

    @property
    def folder(self) -> Path:
        return written_path(RUNS, self.lesson.run_name)

    @property
    def goes_on(self) -> bool:
        return (self.folder / SETTINGS).is_file()

    def open_run(self) -> RunFolder:
        """The run's folder. Raises ValueError if it was begun with other settings or another VAE."""
        return RunFolder(self.folder.parent, self.lesson.run_name, self.settings)


def learn_decoder(lesson: DecoderLesson) -> LearnedDecoder:
    """Learn, from where the run of that name is; a finished run gives its file, and nothing is trained.

    Cancel saves the last whole step and a decoder of it, and the same lesson goes on from there. Raises
    ValueError, with a sentence, for what cannot be learned.
    """
    with torch.inference_mode(False), torch.enable_grad():
        plan = _plan(lesson)
        steps = plan.result.steps_if_done(plan.open_run() if plan.goes_on else None, plan.config.loop.steps)
        if steps is not None:
            return _learned(plan, steps)
        with training_alone():
            step = _train(plan)
        return _learned(plan, step)


def _plan(lesson: DecoderLesson) -> _Plan:
    check_vae(lesson.vae)
    check_run_name(written_path(RUNS, ""), lesson.run_name)
    config = lesson.options.config(lesson.preset, lesson.steps, comfy.model_management.get_torch_device())
    clips = find_clips([lesson.folder])
    hashes = clip_hashes(clips.used)
    hashed = list(zip(clips.used, hashes, strict=True))
    layout = config.layout(detail_channels(lesson.vae.first_stage_model))
    settings = detail_settings(hashed, vae_signature(lesson.vae), layout, config, config.loop.accumulation)
    result = Result(written_path(DECODERS, f"{lesson.run_name}.safetensors"), run_id(settings))
    return _Plan(lesson=lesson, config=config, clips=clips, hashes=hashes, settings=settings, result=result)


def _train(plan: _Plan) -> int:
    """The step that the decoder in the file has learned."""
    host = ComfyVae(plan.lesson.vae, plan.config.dtype)
    training = DetailTraining(host, plan.clips.used, plan.config, plan.hashes)
    needs = "" if plan.goes_on else detail_needs(training)  # a run that goes on has shown that it fits
    memory = partial(used_memory, training.host.device)
    display = NodeDisplay(plan.config.loop.steps, 0, memory, needs)
    if needs:
        display.say(needs)
    run = plan.open_run()

    return train_and_write(
        partial(training.run, run, on_note=display.say),
        partial(training.write, plan.result.path, header=plan.result.header),
        partial(_show, plan, training, display),
        partial(out_of_detail_memory, training),
    )


def _show(
    plan: _Plan, training: DetailTraining[DetailHost], display: NodeDisplay, progress: Progress
) -> None:
    display.step(progress)
    at_the_end = progress.step == plan.config.loop.steps
    if at_the_end or progress.step % plan.lesson.options.sample_every == 0:
        path = write_sheet(plan.lesson.run_name, progress.step, training.sample_sheet())
        display.show(as_output(path))


def _learned(plan: _Plan, step: int) -> LearnedDecoder:
    losses = read_losses(plan.folder / "loss.csv")
    sample = newest_sample(plan.lesson.run_name)
    return LearnedDecoder(
        detail=load_detail_decoder(plan.result.path),
        losses=loss_map(losses),
        sheet=ExecutionBlocker(None) if sample is None else read_frames(sample),
        report="\n".join(_report(plan, step, losses)),
        ui=as_output(sample),
    )


def _report(plan: _Plan, step: int, losses: list[float]) -> Iterator[str]:
    config = plan.config
    yield (
        f"Learned {how_it_ended(step, config.loop.steps)} from {len(plan.clips.used)} clips, "
        f"{config.frames} frames of {config.size} x {config.size} a step."
    )
    yield losses_in_words(losses)
    yield from left_out(plan.clips)
    yield f"Decoder: {plan.result.path.name} in models/{DECODERS}; the run itself in models/{RUNS}."

"""`python -m flash_modules train-transfer`: learn an action from one clip."""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from ..backends.diffusers.cogvideox import BaseFiles, find_base, load_transformer, load_vae
from ..backends.diffusers.cogvideox.train import (
    CHECKPOINTING,
    LearningTokens,
    Needs,
    encode_moments,
    step_needs,
)
from ..files.clip_files import check_frames, examine
from ..files.containers import Unusable
from ..flash.training.needs import gib
from ..flexiact.action_file import write_transfer_action
from ..flexiact.ref_adapter_file import read_ref_adapter
from ..flexiact.training.encoded import encode_views
from ..flexiact.training.lesson import Lesson, kept_lesson, read_lesson
from ..flexiact.training.token_training import (
    TokenTraining,
    TokenTrainingConfig,
    run_settings,
    token_loop,
)
from ..flexiact.training.views import ViewConfig, cut_frames, views
from ..training.clips import Clip, clip_hashes
from ..training.run_folder import SETTINGS, RunFolder, check_run_name
from .clips import check_seed
from .device import find_device, free_memory
from .processes import AcceleratedProcesses
from .progress import Bars, Board
from .run import Say, add_run_arguments, find_dtype, loop_config, open_run, silent, train_and_write
from .transfer import encode_prompts, fitted_picture
from .transfer_samples import Sample, TransferSamples

_LESSON = "lesson.safetensors"
_FULL = "Memory ran out: give --checkpointing cpu, or close what else uses it. The last checkpoint is kept."


def add_train_transfer(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train-transfer`."""
    loop, view = token_loop(), ViewConfig()
    parser.description = (
        "Learn an action from one clip, once, for any picture (FlexiAct, arXiv:2505.03730). Ctrl-C saves, "
        "and the same command goes on. On several GPUs: accelerate launch --multi_gpu -m flash_modules "
        "train-transfer ..."
    )
    parser.set_defaults(run=train_transfer, when_full="give --checkpointing cpu")
    clip = parser.add_argument_group("clip")
    clip.add_argument(
        "--base", type=Path, required=True, help="CogVideoX-5b-I2V: a folder in diffusers' layout"
    )
    clip.add_argument("--clip", type=Path, required=True, help="the clip: a video, or a folder of pictures")
    clip.add_argument("--prompt", required=True, help="what is seen in it, in at most 226 tokens")
    clip.add_argument("--start", type=float, default=view.start, help="seconds, where the action begins")
    clip.add_argument("--end", type=float, help="seconds, where it ends (default: the clip's end)")
    run = parser.add_argument_group("run")
    add_run_arguments(run, loop)
    run.add_argument("--tokens", type=int, default=226, help="of each layer (default %(default)s)")
    run.add_argument(
        "--checkpointing",
        choices=CHECKPOINTING,
        default="blocks",
        help="blocks (default): they run twice to save memory; cpu: and what is kept of them waits there",
    )
    run.add_argument("--dry-run", action="store_true", help="say what it needs, and train nothing")
    samples = parser.add_argument_group("samples on the way")
    samples.add_argument("--image", type=Path, help="a picture of yours that performs on the way")
    samples.add_argument("--sample-prompt", help="its prompt (default: the clip's)")
    samples.add_argument("--ref-adapter", type=Path, help="RefAdapter file, which keeps its look")
    samples.add_argument("--sample-steps", type=int, default=250, help="between two (default %(default)s)")


def train_transfer(args: argparse.Namespace) -> None:
    """Train as the arguments say; all of them are checked before a model is read."""
    _check_arguments(args)
    config = TokenTrainingConfig(loop=loop_config(args, token_loop()), seed=args.seed)
    files = find_base(args.base)
    view = _view(args, files)
    clip = _find_clip(args.clip, args.prompt)
    cut = cut_frames(clip, view)
    sample = _sample(args, files)
    processes = AcceleratedProcesses(find_device(args.device))
    device, say = processes.device, tqdm.write if processes.is_first else silent
    for note in filter(None, (*clip.notes, cut.note)):
        say(note)
    host = LearningTokens(
        load_transformer(files, find_dtype(args.dtype, device)), args.tokens, args.checkpointing
    )
    needs = step_needs(host, args.checkpointing)
    if args.dry_run:
        say(_described(needs, config))
    if not (args.runs / args.out / SETTINGS).is_file():  # a run that goes on has shown that it fits
        _check_memory(needs, device)
    if not args.dry_run:
        _train(args, config, files, clip, view, host, sample, processes, say)


def _train(
    args: argparse.Namespace,
    config: TokenTrainingConfig,
    files: BaseFiles,
    clip: Clip,
    view: ViewConfig,
    host: LearningTokens,
    sample: Sample | None,
    processes: AcceleratedProcesses,
    say: Say,
) -> None:
    device, steps = processes.device, config.loop.steps
    (clip_sha256,) = clip_hashes([clip])
    settings = run_settings(
        config,
        clip_sha256=clip_sha256,
        caption=clip.caption,
        view=view,
        num_tokens=args.tokens,
        base=host.fingerprint,
        micro_batches=config.loop.accumulation * processes.count,
    )
    settings["dtype"] = str(host.transformer.dtype).removeprefix("torch.")
    with open_run(args, settings, processes) as run:
        make = partial(_make_lesson, files, clip, view, device, host.transformer.dtype)
        training = TokenTraining(host, _lesson(run, processes, make), config)
        host.to(device)
        train_and_write(
            run,
            steps,
            processes,
            say,
            bars=Bars(device, steps=steps, silent=not processes.is_first),
            board=Board(run.path),
            samples=TransferSamples(training, host, files, run.path, sample),
            train=training.run,
            write=lambda path, step: write_transfer_action(path, training.learned(path.stem, step)),
            memory_is_full=lambda: ValueError(_FULL),
        )


def _view(args: argparse.Namespace, files: BaseFiles) -> ViewConfig:
    shape = files.shape
    return ViewConfig(
        frames=shape.frames, height=shape.height, width=shape.width, start=args.start, end=args.end
    )


def _sample(args: argparse.Namespace, files: BaseFiles) -> Sample | None:
    """What performs on the way, if there is a picture."""
    if args.image is None:
        return None
    return Sample(
        image_1HWC=fitted_picture(args.image, files),
        prompt=args.sample_prompt or args.prompt,
        adapter=read_ref_adapter(args.ref_adapter) if args.ref_adapter else None,
        seed=args.seed,
        every=args.sample_steps,
    )


def _check_arguments(args: argparse.Namespace) -> None:
    check_seed(args.seed)
    check_run_name(args.runs, args.out)
    for name in ("tokens", "sample_steps"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be 1 or more, but it is {getattr(args, name)}.")
    if args.image is None and (args.ref_adapter or args.sample_prompt):
        raise ValueError("--ref-adapter and --sample-prompt are for samples: give their --image, too.")


def _find_clip(path: Path, caption: str) -> Clip:
    try:
        footage = check_frames(path, examine(path))
    except Unusable as error:
        raise ValueError(f"{path} cannot be used as a clip: {error}.") from error
    return Clip(path=path, action=path.stem, caption=caption, footage=footage)


def _lesson(run: RunFolder, processes: AcceleratedProcesses, make: Callable[[], Lesson]) -> Lesson:
    """The run's lesson; one process makes it, and the others wait."""
    if processes.is_first:
        kept_lesson(run.path / _LESSON, make)
    processes.any(False)
    return read_lesson(run.path / _LESSON)


def _make_lesson(
    files: BaseFiles, clip: Clip, view: ViewConfig, device: torch.device, dtype: torch.dtype
) -> Lesson:
    """Caption and views of the clip, encoded; text encoder and VAE go again."""
    text_embeds, empty_embeds = encode_prompts(files, [clip.caption, ""], device, dtype)
    vae = load_vae(files, dtype).to(device)
    with tqdm(total=view.num_views, desc="Encoding the clip", unit="view") as bar:
        encoded = encode_views(views(clip, view), partial(encode_moments, vae), bar.update)
    (clip_sha256,) = clip_hashes([clip])
    return Lesson(
        views=encoded,
        caption=clip.caption,
        text_embeds=text_embeds.float().cpu(),
        empty_embeds=empty_embeds.float().cpu(),
        clip_sha256=clip_sha256,
    )


def _check_memory(needs: Needs, device: torch.device) -> None:
    """Raise ValueError, with the setting that needs less, if a step takes more than is free."""
    free = free_memory(device)
    if needs.device_bytes > free:
        raise ValueError(
            f"Learning needs about {gib(needs.device_bytes)}, and {gib(free)} are free on {device}: give "
            "--checkpointing cpu, which needs the least, or take another device."
        )


def _described(needs: Needs, config: TokenTrainingConfig) -> str:
    waits = f", and {gib(needs.waiting_bytes)} of the computer's" if needs.waiting_bytes else ""
    return (
        f"A step takes {needs.flops / 1e12:.3g} TFLOP and {gib(needs.device_bytes)} of memory{waits}; "
        f"{config.loop.steps} steps take {needs.flops * config.loop.steps / 1e18:.3g} EFLOP."
    )

"""`python -m flash_modules train-transfer`: learn an action from one clip."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from ..backends.diffusers.cogvideox import (
    BaseFiles,
    add_transfer,
    check_prompts,
    find_base,
    load_transformer,
)
from ..backends.diffusers.cogvideox.train import LearningTokens
from ..flexiact.action_file import write_transfer_action
from ..flexiact.performance import Performance
from ..flexiact.training.lesson import LESSON
from ..flexiact.training.needs import step_needs
from ..flexiact.training.source import Source
from ..flexiact.training.token_training import (
    TokenTraining,
    TokenTrainingConfig,
    run_settings,
    token_loop,
)
from ..training.run_folder import check_run_name
from .clips import check_seed
from .device import find_device
from .processes import AcceleratedProcesses
from .progress import Bars, Board
from .run import Say, add_run_arguments, find_dtype, loop_config, open_run, silent, train_and_write
from .transfer_lesson import (
    add_clip_arguments,
    add_sample_arguments,
    check_lesson_arguments,
    find_samples,
    find_source,
    lesson_of,
    write_sheet,
)
from .transfer_memory import (
    FULL,
    LEAST,
    add_saving_arguments,
    check_encoding,
    check_memory,
    chosen_saving,
    described,
)
from .transfer_samples import Sample, TransferSamples


def add_train_transfer(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train-transfer`."""
    loop = token_loop()
    parser.description = (
        "Learn an action from one clip, once, for any picture (FlexiAct, arXiv:2505.03730). Ctrl-C saves, "
        "and the same command goes on. On several GPUs: accelerate launch --multi_gpu -m flash_modules "
        "train-transfer ..."
    )
    parser.set_defaults(run=train_transfer, when_full=LEAST)
    clip = parser.add_argument_group("clip")
    clip.add_argument(
        "--base", type=Path, required=True, help="CogVideoX-5b-I2V: a folder in diffusers' layout"
    )
    add_clip_arguments(clip)
    run = parser.add_argument_group("run")
    add_run_arguments(run, loop)
    run.add_argument("--tokens", type=int, default=226, help="of each layer (default %(default)s)")
    add_saving_arguments(run)
    run.add_argument("--dry-run", action="store_true", help="say what it needs, and train nothing")
    samples = parser.add_argument_group("samples on the way")
    add_sample_arguments(samples)


def train_transfer(args: argparse.Namespace) -> None:
    """Train as the arguments say; all of them are checked before a model is read."""
    _check_arguments(args)
    config = TokenTrainingConfig(loop=loop_config(args, token_loop()), seed=args.seed)
    saving = chosen_saving(args)
    files = find_base(args.base)
    source = find_source(args, files)
    samples = find_samples(args, files, source.captions[0])
    check_prompts(files, [*source.captions, *(sample.prompt for sample in samples)])
    processes = AcceleratedProcesses(find_device(args.device))
    device, say = processes.device, tqdm.write if processes.is_first else silent
    for note in source.notes:
        say(note)
    if args.sheet:
        if processes.is_first:
            write_sheet(args, source, say)
        return
    host = LearningTokens(load_transformer(files, find_dtype(args.dtype, device)), args.tokens, saving)
    needs = step_needs(host, saving)
    if args.dry_run:
        say(described(needs, steps=config.loop.steps))
    check_memory(host, needs, device)
    if not (args.runs / args.out / LESSON).is_file():
        check_encoding(files, host.transformer.dtype, device)
    if not args.dry_run:
        _train(args, config, files, source, host, samples, processes, say)


def _train(
    args: argparse.Namespace,
    config: TokenTrainingConfig,
    files: BaseFiles,
    source: Source,
    host: LearningTokens,
    samples: Sequence[Sample],
    processes: AcceleratedProcesses,
    say: Say,
) -> None:
    device, steps = processes.device, config.loop.steps
    settings = source.settings | run_settings(
        config,
        clip_sha256=source.sha256,
        caption=source.captions[0],
        view=source.parts[0].config,
        num_tokens=args.tokens,
        base=host.fingerprint,
        micro_batches=config.loop.accumulation * processes.count,
    )
    settings["dtype"] = str(host.transformer.dtype).removeprefix("torch.")
    with open_run(args, settings, processes) as run:
        lesson = lesson_of(run, processes, files, source, host.transformer.dtype)
        training = TokenTraining(host, lesson, config)
        host.to(device)

        def perform(sample: Sample, step: int) -> Callable[[], None]:
            performance = Performance(action=training.learned("sample", step))
            return add_transfer(host.transformer, [performance], sample.adapter)

        train_and_write(
            run,
            steps,
            processes,
            say,
            bars=Bars(device, steps=steps, silent=not processes.is_first),
            board=Board(run.path),
            samples=TransferSamples(
                host,
                files,
                run.path,
                samples,
                {lesson.caption: lesson.text_of(0), "": lesson.empty_embeds},
                perform,
            ),
            train=training.run,
            write=lambda path, step: write_transfer_action(path, training.learned(path.stem, step)),
            memory_is_full=lambda: ValueError(FULL),
        )


def _check_arguments(args: argparse.Namespace) -> None:
    check_seed(args.seed)
    check_run_name(args.runs, args.out)
    for name in ("tokens", "sample_steps"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} must be 1 or more, but it is {getattr(args, name)}.")
    check_lesson_arguments(args)

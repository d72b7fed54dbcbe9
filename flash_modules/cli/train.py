"""`python -m flash_modules train`: learn an action from clips."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..augment import AugmentConfig
from ..backends.diffusers import find_base, load_base
from ..backends.diffusers.checkpointing import CHECKPOINTING
from ..backends.diffusers.train_action import ActionTraining, ActionTrainingConfig
from ..checkpoint import read_motion
from ..motion_alignment import AlignmentConfig
from ..training.clips import Clips
from ..training.loop import LoopConfig
from ..training.pool import PoolConfig
from ..training.presets import TRAINABLE, VARIANTS, MethodConfig
from ..training.run_folder import SETTINGS, Progress, RunFolder
from ..video_files import fit_picture, read_picture
from .clips import add_clip_arguments, check_seed, look_for_clips, sampling_config
from .device import DTYPES, find_device
from .needs import PRESETS, check_memory, needs, out_of_memory
from .processes import AcceleratedProcesses
from .progress import Bars, Board, Samples


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.description = (
        "Learn an action from 4 to 16 clips (FLASH, arXiv:2503.00276). Ctrl-C saves, and the same command "
        "goes on. On several GPUs: accelerate launch --multi_gpu -m flash_modules train ..."
    )
    parser.set_defaults(run=train_action)
    models = parser.add_argument_group("models")
    models.add_argument(
        "--base", type=Path, required=True, help="Stable Diffusion 1.5, a folder or a file, as for animate"
    )
    models.add_argument("--tokenizer", type=Path, help="its folder, for a checkpoint file")
    models.add_argument("--motion", type=Path, required=True, help="AnimateDiff motion module (v3 is best)")
    add_clip_arguments(parser)
    _add_method(parser.add_argument_group("method"))
    _add_run(parser.add_argument_group("run"))
    _add_samples(parser.add_argument_group("samples on the way"))


def _add_method(group: Any) -> None:
    method, alignment = MethodConfig(), AlignmentConfig()
    group.add_argument("--preset", choices=PRESETS, default="paper", help="size of pictures: 256, 384, 512")
    group.add_argument("--size", type=int, help="another size, in pixels; a multiple of 8")
    group.add_argument(
        "--variant",
        type=int,
        choices=VARIANTS,
        default=5,
        help="of the paper's Table 2 (default 5, all of it)",
    )
    group.add_argument("--tau", type=float, help=f"percentile of motion channels (default {alignment.tau:g})")
    group.add_argument("--p", type=float, help=f"part of aligned attentions (default {alignment.p:g})")
    group.add_argument("--trainable", choices=TRAINABLE, default=method.trainable, help="default %(default)s")


def _add_run(group: Any) -> None:
    loop, pool = LoopConfig(), PoolConfig()
    group.add_argument("--out", required=True, metavar="NAME", help="name of the run and of the action")
    group.add_argument("--runs", type=Path, default=Path("runs"), help="folder of runs (default %(default)s)")
    group.add_argument("--steps", type=int, default=loop.steps, help="default %(default)s")
    group.add_argument("--lr", type=float, default=loop.learning_rate, help="default %(default)s")
    group.add_argument("--accumulation", type=int, default=1, help="pairs of a step and process (default 1)")
    group.add_argument("--seed", type=int, default=0, help="default %(default)s")
    group.add_argument(
        "--pool", type=int, default=pool.per_clip, help="encoded versions of each clip (default %(default)s)"
    )
    group.add_argument("--save-steps", type=int, default=loop.save_steps, help="default %(default)s")
    group.add_argument("--keep", type=int, default=loop.keep, help="checkpoints kept (default %(default)s)")
    group.add_argument(
        "--checkpointing",
        choices=CHECKPOINTING,
        default="none",
        help="what is computed twice to save memory (default %(default)s)",
    )
    group.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    group.add_argument(
        "--dtype", choices=["auto", *DTYPES], default="auto", help="auto is bf16 on CUDA, else fp32"
    )
    group.add_argument(
        "--standalone", action="store_true", help="write a whole motion module with the action"
    )
    group.add_argument("--dry-run", action="store_true", help="say what would be done, and what it needs")


def _add_samples(group: Any) -> None:
    group.add_argument("--image", type=Path, help="a picture of yours that is animated on the way")
    group.add_argument("--sample-prompt", help="its prompt (default: the first clip's)")
    group.add_argument(
        "--sample-steps", type=int, default=500, help="steps between two (default %(default)s)"
    )


def train_action(args: argparse.Namespace) -> None:
    """Train as the arguments say; all of them are checked before a model is read."""
    check_seed(args.seed)
    size = args.size or PRESETS[args.preset]
    config = _config(args, size)
    files = find_base(args.base, args.tokenizer)
    image_1HWC = fit_picture(read_picture(args.image), (size, size)) if args.image else None
    motion = read_motion(args.motion)
    processes = AcceleratedProcesses(find_device(args.device))
    say = tqdm.write if processes.is_first else _silent
    clips = look_for_clips(args, silent=not processes.is_first)
    for line in _listing(clips):
        say(line)
    config = replace(config, dtype=_dtype(args.dtype, processes.device))
    training = ActionTraining(load_base(files), args.base.stem, motion, clips.used, config, processes.device)
    if args.dry_run:
        for line in needs(training):
            say(line)
    if not (args.runs / args.out / SETTINGS).is_file():  # a run that goes on has shown that it fits
        check_memory(training)
    if not args.dry_run:
        _train(args, training, image_1HWC, processes, say)


def _train(
    args: argparse.Namespace,
    training: ActionTraining,
    image_1HWC: Tensor | None,
    processes: AcceleratedProcesses,
    say: Callable[[str], object],
) -> None:
    run = _open_run(args, training, processes)
    prompt = args.sample_prompt or training.clips[0].caption
    samples = Samples(training, run.path, image_1HWC, prompt, args.seed, args.sample_steps)
    with Bars(training, silent=not processes.is_first) as bars, Board(run.path) as board:
        watchers = (bars, board, samples) if processes.is_first else (bars,)

        def on_step(progress: Progress) -> None:
            for watcher in watchers:
                watcher.step(progress)

        try:
            end = training.run(run, processes=processes, on_entry=bars.entry, on_step=on_step, on_note=say)
        except torch.OutOfMemoryError as error:
            raise out_of_memory(training) from error
    if processes.is_first:
        path = run.path / f"{args.out}.safetensors"
        training.write(path, end.step, standalone=args.standalone)
    steps = training.config.loop.steps
    say(f"Wrote {run.path / args.out}.safetensors after {end.step} of {steps} steps.")
    if end.step < steps:
        say("It was stopped: the same command goes on from here.")


def _open_run(
    args: argparse.Namespace, training: ActionTraining, processes: AcceleratedProcesses
) -> RunFolder:
    """The run's folder; the other processes wait until the first one has made it."""
    settings = training.settings(training.config.loop.accumulation * processes.count)
    run = RunFolder(args.runs, args.out, settings) if processes.is_first else None
    processes.any(False)
    return run or RunFolder(args.runs, args.out, settings, first=False)


def _config(args: argparse.Namespace, size: int) -> ActionTrainingConfig:
    method = VARIANTS[args.variant]
    changes = {name: value for name in ("tau", "p") if (value := getattr(args, name)) is not None}
    method = replace(
        method,
        alignment=replace(method.alignment, **changes),
        augment=AugmentConfig(size=size),
        trainable=args.trainable,
    )
    return ActionTrainingConfig(
        method=method,
        sampling=sampling_config(args),
        pool=PoolConfig(per_clip=args.pool),
        loop=LoopConfig(
            steps=args.steps,
            learning_rate=args.lr,
            accumulation=args.accumulation,
            save_steps=args.save_steps,
            keep=args.keep,
        ),
        seed=args.seed,
        checkpointing=args.checkpointing,
    )


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def _listing(clips: Clips) -> Iterator[str]:
    """What is trained on, and what is left out."""
    actions = Counter(clip.action for clip in clips.used)
    for action, count in actions.items():
        captions = {clip.caption for clip in clips.used if clip.action == action}
        shown = f'"{min(captions)}"' if len(captions) == 1 else f"{len(captions)} captions"
        yield f"{action}: {count} clips, {shown}"
    for skipped in clips.skipped:
        yield f"Skipped {skipped.path.name}: {skipped.reason}"


def _silent(text: str) -> None:
    pass

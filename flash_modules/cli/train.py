"""`python -m flash_modules train`: learn an action from clips."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from ..animatediff.motion_file import read_motion
from ..backends.diffusers.sd15 import find_base, load_base
from ..backends.diffusers.sd15.load.captions import check_captions
from ..backends.diffusers.sd15.train.action import DiffusersHost, action_training
from ..files.video_files import fit_picture, read_picture
from ..flash.action_file import Action, read_action
from ..flash.training.action_training import CHECKPOINTING, ActionTraining, ActionTrainingConfig
from ..flash.training.exam import ExamConfig
from ..flash.training.latent_pool import PoolConfig
from ..flash.training.settings import check_twins
from ..flash.training.start import begin_with, source_of
from ..training.exam import Marks, begun_without_exam, read_marks, verdict
from ..training.loop import LoopConfig
from ..training.run_folder import SETTINGS, Progress, RunFolder, check_run_name
from .clips import (
    add_clip_arguments,
    add_twins_argument,
    captions,
    check_seed,
    look_for_pairs,
    sampling_config,
)
from .device import find_device
from .method import add_method_arguments, chosen_method
from .needs import check_memory, needs, out_of_memory
from .processes import AcceleratedProcesses
from .progress import Bars, Board, Samples
from .run import (
    Say,
    add_run_arguments,
    chosen_size,
    find_dtype,
    listing,
    loop_config,
    open_run,
    silent,
    train_and_write,
)


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.description = (
        "Learn an action from 4 to 16 clips (FLASH, arXiv:2503.00276). Ctrl-C saves, and the same command "
        "goes on; after a kill or a power cut it goes on from the last checkpoint. "
        "On several GPUs: accelerate launch --multi_gpu -m flash_modules train ..."
    )
    parser.set_defaults(run=train_action)
    models = parser.add_argument_group("models")
    models.add_argument(
        "--base", type=Path, required=True, help="Stable Diffusion 1.5, a folder or a file, as for animate"
    )
    models.add_argument("--tokenizer", type=Path, help="its folder, for a checkpoint file")
    models.add_argument("--motion", type=Path, required=True, help="AnimateDiff motion module (v3 is best)")
    models.add_argument("--from-action", type=Path, metavar="FILE", help="an action to begin with")
    add_twins_argument(add_clip_arguments(parser))
    add_method_arguments(parser.add_argument_group("method"))
    _add_run(parser.add_argument_group("run"))
    _add_samples(parser.add_argument_group("samples on the way"))


def _add_run(group: Any) -> None:
    pool = PoolConfig()
    add_run_arguments(group, LoopConfig())
    group.add_argument(
        "--pool", type=int, default=pool.per_clip, help="encoded versions of each clip (default %(default)s)"
    )
    group.add_argument(
        "--checkpointing",
        choices=CHECKPOINTING,
        default="none",
        help="what is computed twice to save memory (default %(default)s)",
    )
    group.add_argument(
        "--no-exam",
        action="store_true",
        help="keep no clip aside (else one of six, of an action with 6 or more), and do not ask on the way "
        "how well it does on what it never saw",
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
    check_run_name(args.runs, args.out)
    size = chosen_size(args)
    config = _config(args, size)
    files = find_base(args.base, args.tokenizer)
    image_1HWC = fit_picture(read_picture(args.image), (size, size)) if args.image else None
    motion = read_motion(args.motion)
    action = read_action(args.from_action) if args.from_action else None
    processes = AcceleratedProcesses(find_device(args.device))
    say = tqdm.write if processes.is_first else silent
    clips = look_for_pairs(args, silent=not processes.is_first)
    check_twins(clips.used, config.method)
    for line in listing(clips):
        say(line)
    start = source_of(action) if action else None
    config = replace(config, dtype=find_dtype(args.dtype, processes.device), start=start)
    base = load_base(files)
    check_captions(base, captions(clips))
    training = action_training(base, args.base.stem, motion, clips.used, config, processes.device)
    for note in _notes(training, {args.motion: motion.note, args.base: base.note}, action):
        say(note)
    if args.dry_run:
        for line in needs(training):
            say(line)
    if not (args.runs / args.out / SETTINGS).is_file():  # a run that goes on has shown that it fits
        check_memory(training)
    if not args.dry_run:
        _train(args, training, image_1HWC, processes, say)


def _notes(
    training: ActionTraining[DiffusersHost], files: Mapping[Path, str], action: Action | None
) -> Iterator[str]:
    """What the user should know of the files and clips; the training begins with the action, if any."""
    if action:
        yield from begin_with(training, action)
    for path, note in files.items():
        if note:
            yield f"{path.name}: {note}"
    if training.kept_aside:
        names = ", ".join(clip.path.name for clip in training.kept_aside)
        yield f"Kept aside for the exam: {names}"


def _train(
    args: argparse.Namespace,
    training: ActionTraining[DiffusersHost],
    image_1HWC: Tensor | None,
    processes: AcceleratedProcesses,
    say: Say,
) -> None:
    settings = training.settings(training.config.loop.accumulation * processes.count)
    with open_run(args, settings, processes) as run:
        prompt = args.sample_prompt or training.clips[0].caption
        samples = Samples(training, run.path, image_1HWC, prompt, args.seed, args.sample_steps)
        board = Board(run.path)
        bars = Bars(
            training.host.device,
            steps=training.config.loop.steps,
            entries=len(training.pool(run.path)),
            silent=not processes.is_first,
        )
        train_and_write(
            run,
            training.config.loop.steps,
            processes,
            say,
            bars=bars,
            board=board,
            samples=samples,
            train=partial(_learn, training, bars, board),
            write=partial(training.write, standalone=args.standalone),
            memory_is_full=partial(out_of_memory, training),
        )
        for line in verdict(read_marks(run.path)):
            say(line)


def _learn(
    training: ActionTraining[DiffusersHost],
    bars: Bars,
    board: Board,
    run: RunFolder,
    *,
    stopped: Callable[[], bool],
    **more: Any,
) -> Progress:
    def on_entry() -> None:
        bars.entry()
        if stopped():  # nothing of this sitting is learned yet
            raise KeyboardInterrupt

    def on_marks(marks: Marks) -> None:
        bars.marks(marks)
        board.marks(marks)

    return training.run(run, stopped=stopped, on_entry=on_entry, on_marks=on_marks, **more)


def _config(args: argparse.Namespace, size: int) -> ActionTrainingConfig:
    return ActionTrainingConfig(
        method=chosen_method(args, size),
        sampling=sampling_config(args),
        pool=PoolConfig(per_clip=args.pool),
        loop=loop_config(args, LoopConfig()),
        exam=None if args.no_exam or begun_without_exam(args.runs / args.out / SETTINGS) else ExamConfig(),
        text_drop=args.text_drop,
        seed=args.seed,
        checkpointing=args.checkpointing,
    )

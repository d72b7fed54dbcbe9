"""`python -m flash_modules train-decoder`: learn to keep a picture's details in every frame."""

import argparse
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..backends.diffusers.sd15 import load_vae
from ..backends.diffusers.sd15.train.detail import DiffusersVae, detail_training
from ..flash.training.detail_training import DetailTraining, DetailTrainingConfig
from ..training.loop import LoopConfig
from ..training.run_folder import SETTINGS, check_run_name
from .clips import add_clip_arguments, check_seed, look_for_clips, sampling_config
from .device import find_device
from .needs import check_detail_memory, out_of_detail_memory
from .processes import AcceleratedProcesses
from .progress import Bars, Board, SamplePictures
from .run import (
    Say,
    add_run_arguments,
    add_size_arguments,
    chosen_size,
    find_dtype,
    listing,
    loop_config,
    open_run,
    silent,
    train_and_write,
)


def add_train_decoder(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train-decoder`."""
    config = DetailTrainingConfig()
    parser.description = (
        "Learn to bring a picture's details into every frame that a VAE decodes (FLASH, arXiv:2503.00276, "
        "3.3). Any clips do, of any actions. Ctrl-C saves, and the same command goes on; after a kill or a "
        "power cut it goes on from the last checkpoint."
    )
    parser.set_defaults(run=train_decoder)
    parser.add_argument_group("models").add_argument(
        "--vae",
        type=Path,
        required=True,
        help="Stable Diffusion 1.5's VAE, or a whole base model: a folder in diffusers' layout, or a file",
    )
    add_clip_arguments(parser)
    method = parser.add_argument_group("method")
    add_size_arguments(method)
    method.add_argument(
        "--frames-per-step",
        type=int,
        default=config.frames,
        help="1 to 4, as memory allows (default %(default)s)",
    )
    method.add_argument(
        "--width", type=int, default=config.width, help="channels inside the branches (default %(default)s)"
    )
    method.add_argument(
        "--without",
        choices=["warping", "attention"],
        help="leave this branch out (the paper's Table A2)",
    )
    run = parser.add_argument_group("run")
    add_run_arguments(run, config.loop)
    run.add_argument(
        "--sample-steps", type=int, default=500, help="steps between two pictures (default %(default)s)"
    )


def train_decoder(args: argparse.Namespace) -> None:
    """Train as the arguments say; all of them are checked before a model is read."""
    check_seed(args.seed)
    check_run_name(args.runs, args.out)
    processes = AcceleratedProcesses(find_device(args.device))
    config = DetailTrainingConfig(
        size=chosen_size(args),
        frames=args.frames_per_step,
        width=args.width,
        warping=args.without != "warping",
        attention=args.without != "attention",
        sampling=sampling_config(args),
        loop=loop_config(args, LoopConfig()),
        seed=args.seed,
        dtype=find_dtype(args.dtype, processes.device),
    )
    vae = load_vae(args.vae)
    say = tqdm.write if processes.is_first else silent
    clips = look_for_clips(args, silent=not processes.is_first)
    for line in listing(clips):
        say(line)
    training = detail_training(vae, args.vae.stem, clips.used, config, processes.device)
    if not (args.runs / args.out / SETTINGS).is_file():  # a run that goes on has shown that it fits
        check_detail_memory(training)
    _train(args, training, processes, say)


def _train(
    args: argparse.Namespace,
    training: DetailTraining[DiffusersVae],
    processes: AcceleratedProcesses,
    say: Say,
) -> None:
    loop = training.config.loop
    with open_run(args, training.settings(loop.accumulation * processes.count), processes) as run:
        pictures = SamplePictures(training, run.path, args.sample_steps)
        bars = Bars(training.host.device, steps=loop.steps, silent=not processes.is_first)
        train_and_write(
            run,
            loop.steps,
            processes,
            say,
            bars=bars,
            board=Board(run.path),
            samples=pictures,
            train=training.run,
            write=training.write,
            memory_is_full=partial(out_of_detail_memory, training),
        )

"""`python -m flash_modules train-ref-adapter`: learn from many clips what keeps a picture's look."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ..backends.diffusers.cogvideox import (
    BaseFiles,
    add_transfer,
    check_prompts,
    find_base,
    load_transformer,
)
from ..backends.diffusers.cogvideox.train import LearningRefAdapter
from ..flexiact.ref_adapter_file import write_ref_adapter
from ..flexiact.training.needs import step_needs
from ..flexiact.training.ref_clips import RefClipConfig, long_enough
from ..flexiact.training.ref_training import RefTraining, RefTrainingConfig, ref_adapter_loop, run_settings
from ..training.clips import Clip, clip_hashes
from ..training.run_folder import check_run_name
from .clips import add_folder_arguments, check_seed, look_for_clips
from .device import find_device
from .processes import AcceleratedProcesses
from .progress import Bars, Board
from .ref_lessons import disk_needs, encoded_lessons
from .run import (
    Say,
    add_run_arguments,
    find_dtype,
    listing,
    loop_config,
    open_run,
    silent,
    train_and_write,
)
from .transfer import fitted_picture
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


def add_train_ref_adapter(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train-ref-adapter`."""
    config, taken = RefTrainingConfig(), RefClipConfig()
    parser.description = (
        "Learn a RefAdapter from many clips of any kind, once for a base (FlexiAct, arXiv:2505.03730): the "
        "released one took 42,000 clips and 40,000 steps of 8. Ctrl-C saves, and the same command goes on. "
        "On several GPUs: accelerate launch --multi_gpu -m flash_modules train-ref-adapter ..."
    )
    parser.set_defaults(run=train_ref_adapter, when_full=LEAST)
    clips = parser.add_argument_group("clips")
    clips.add_argument(
        "--base", type=Path, required=True, help="CogVideoX-5b-I2V: a folder in diffusers' layout"
    )
    add_folder_arguments(clips)
    clips.add_argument(
        "--windows",
        type=int,
        default=taken.windows,
        help="that are taken of each clip, of the base's 49 frames (default %(default)s)",
    )
    clips.add_argument(
        "--pictures",
        type=int,
        default=taken.pictures,
        help="that are taken from anywhere in each clip, for its windows to begin with (default %(default)s)",
    )
    run = parser.add_argument_group("run")
    add_run_arguments(run, config.loop)
    run.add_argument("--rank", type=int, default=config.rank, help="of the LoRA (default %(default)s)")
    add_saving_arguments(run)
    run.add_argument("--dry-run", action="store_true", help="say what it needs, and train nothing")
    samples = parser.add_argument_group("samples on the way")
    samples.add_argument("--image", type=Path, help="a picture of yours that is animated on the way")
    samples.add_argument("--sample-prompt", help="its prompt (default: the first clip's)")
    samples.add_argument("--sample-steps", type=int, default=500, help="between two (default %(default)s)")


def train_ref_adapter(args: argparse.Namespace) -> None:
    """Train as the arguments say; all of them are checked before a model is read."""
    _check_arguments(args)
    files = find_base(args.base)
    config = _config(args, files)
    saving = chosen_saving(args)
    image_1HWC = fitted_picture(args.image, files) if args.image else None
    processes = AcceleratedProcesses(find_device(args.device))
    device, say = processes.device, tqdm.write if processes.is_first else silent
    clips = long_enough(look_for_clips(args, silent=not processes.is_first), config.clips)
    for line in listing(clips):
        say(line)
    samples = _samples(args, image_1HWC, clips.used[0].caption)
    captions = dict.fromkeys(clip.caption for clip in clips.used)
    check_prompts(files, [*captions, *(sample.prompt for sample in samples)])
    dtype = find_dtype(args.dtype, device)
    disk = disk_needs(args.runs / args.out, files, clips.used, config.clips, dtype)
    if args.dry_run:
        say(disk.said)
    disk.check()
    host = LearningRefAdapter(load_transformer(files, dtype), config.rank, config.seed, saving)
    needs = step_needs(host, saving)
    if args.dry_run:
        say(described(needs, steps=config.loop.steps, parts=config.loop.accumulation))
    check_memory(host, needs, device)
    if disk.needed:
        check_encoding(files, dtype, device)
    if not args.dry_run:
        _train(args, config, files, clips.used, host, samples, processes, say)


def _train(
    args: argparse.Namespace,
    config: RefTrainingConfig,
    files: BaseFiles,
    clips: Sequence[Clip],
    host: LearningRefAdapter,
    samples: Sequence[Sample],
    processes: AcceleratedProcesses,
    say: Say,
) -> None:
    device, dtype, steps = processes.device, host.transformer.dtype, config.loop.steps
    hashes = clip_hashes(clips)
    settings = run_settings(
        config,
        clips,
        clip_hashes=hashes,
        base=host.fingerprint,
        micro_batches=config.loop.accumulation * processes.count,
    )
    settings["dtype"] = str(dtype).removeprefix("torch.")
    with open_run(args, settings, processes) as run:
        lessons = encoded_lessons(run, processes, files, clips, config.clips, dtype=dtype, seed=config.seed)
        training = RefTraining(host, lessons, config)
        host.to(device)
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
                {text: lessons.text_embeds(text) for text in (clips[0].caption, "")},
                lambda sample, step: add_transfer(host.transformer, [], training.learned("sample", step)),
            ),
            train=training.run,
            write=lambda path, step: write_ref_adapter(path, training.learned(path.stem, step, hashes)),
            memory_is_full=lambda: ValueError(FULL),
        )


def _config(args: argparse.Namespace, files: BaseFiles) -> RefTrainingConfig:
    shape = files.shape
    return RefTrainingConfig(
        clips=RefClipConfig(
            frames=shape.frames,
            height=shape.height,
            width=shape.width,
            windows=args.windows,
            pictures=args.pictures,
        ),
        loop=loop_config(args, ref_adapter_loop()),
        rank=args.rank,
        seed=args.seed,
    )


def _samples(args: argparse.Namespace, image_1HWC: Tensor | None, caption: str) -> list[Sample]:
    """The user's picture, if there is one; `caption` is the first clip's."""
    if image_1HWC is None:
        return []
    return [
        Sample(
            name="sample",
            image_1HWC=image_1HWC,
            prompt=args.sample_prompt or caption,
            adapter=None,
            seed=args.seed,
            every=args.sample_steps,
        )
    ]


def _check_arguments(args: argparse.Namespace) -> None:
    check_seed(args.seed)
    check_run_name(args.runs, args.out)
    if args.sample_steps < 1:
        raise ValueError(f"--sample-steps must be 1 or more, but it is {args.sample_steps}.")
    if args.sample_prompt and args.image is None:
        raise ValueError("--sample-prompt is for samples: give their --image, too.")

"""`python -m flash_modules train`: learn an action from clips."""

import argparse
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from ..augment import AugmentConfig
from ..backends.diffusers import find_base, load_base
from ..backends.diffusers.checkpointing import CHECKPOINTING
from ..backends.diffusers.train_action import ActionTraining, ActionTrainingConfig
from ..checkpoint import read_motion
from ..motion_alignment import AlignmentConfig
from ..noise_schedule import SamplerConfig
from ..training.clips import Clips, find_clips
from ..training.loop import LoopConfig
from ..training.pool import PoolConfig
from ..training.presets import TRAINABLE, VARIANTS, MethodConfig
from ..training.run_folder import Progress, RunFolder
from ..video_files import fit_picture, read_picture, write_video
from .clips import add_clip_arguments, check_seed, sampling_config
from .device import DTYPES, find_device

PRESETS = {"draft": 256, "balanced": 384, "paper": 512}
"""Pixels of the square that is trained on."""


def add_train(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    parser.description = (
        "Learn an action from 4 to 16 clips (FLASH, arXiv:2503.00276). Ctrl-C saves, and the same command "
        "goes on. On several GPUs: accelerate launch -m flash_modules train ..."
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
    clips = find_clips(args.clips, args.prompt)
    motion = read_motion(args.motion)
    processes = AcceleratedProcesses(find_device(args.device))
    say = tqdm.write if processes.index == 0 else _silent
    for line in _listing(clips):
        say(line)
    config = replace(config, dtype=_dtype(args.dtype, processes.device))
    training = ActionTraining(load_base(files), args.base.stem, motion, clips.used, config, processes.device)
    if args.dry_run:
        for line in _needs(training):
            say(line)
        return
    run = _open_run(args, training, processes)
    samples = _Samples(training, run.path, image_1HWC, args.sample_prompt or clips.used[0].caption, args)
    with _Bars(training, run, silent=processes.index != 0) as bars:

        def on_step(progress: Progress) -> None:
            bars.step(progress)
            if processes.index == 0:
                samples.step(progress)

        end = training.run(run, processes=processes, on_entry=bars.entry, on_step=on_step, on_note=say)
    if processes.index == 0:
        path = run.path / f"{args.out}.safetensors"
        training.write(path, end.step, standalone=args.standalone)
        say(f"Wrote {path} after {end.step} of {config.loop.steps} steps.")
        if end.step < config.loop.steps:
            say("It was stopped: the same command goes on from here.")


def _open_run(
    args: argparse.Namespace, training: ActionTraining, processes: "AcceleratedProcesses"
) -> RunFolder:
    """The run's folder; the other processes wait until the first one has made it."""
    settings = training.settings(training.config.loop.accumulation * processes.count)
    run = RunFolder(args.runs, args.out, settings) if processes.index == 0 else None
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


class AcceleratedProcesses:
    """The processes that `accelerate launch` started, or this one alone."""

    def __init__(self, device: torch.device) -> None:
        self._accelerator = Accelerator(cpu=device.type == "cpu")
        self.count, self.index = self._accelerator.num_processes, self._accelerator.process_index
        self.device = self._accelerator.device if self.count > 1 else device

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def average_(self, tensors: Iterable[Tensor]) -> None:
        if self.count > 1:
            for tensor in tensors:
                mean = self._accelerator.reduce(tensor.to(self.device), reduction="mean")
                tensor.copy_(mean)

    def any(self, flag: bool) -> bool:
        if self.count == 1:
            return flag
        return bool(self._accelerator.reduce(torch.tensor(float(flag), device=self.device)) > 0)


def _listing(clips: Clips) -> Iterator[str]:
    """What is trained on, and what is left out."""
    actions = Counter(clip.action for clip in clips.used)
    for action, count in actions.items():
        captions = {clip.caption for clip in clips.used if clip.action == action}
        shown = f'"{min(captions)}"' if len(captions) == 1 else f"{len(captions)} captions"
        yield f"{action}: {count} clips, {shown}"
    for skipped in clips.skipped:
        yield f"Skipped {skipped.path.name}: {skipped.reason}"


def _needs(training: ActionTraining) -> Iterator[str]:
    """What a run takes: weights that learn, work, memory and time."""
    config, cost = training.config, training.cost()
    learning = sum(weight.numel() for weight in training.weights.values())
    all_weights = sum(weight.numel() * weight.element_size() for weight in training.model.parameters())
    memory = all_weights + 3 * 4 * learning + cost.saved_bytes  # gradients, and AdamW's two averages
    speed = _flops_per_second(training.device, config.dtype)
    seconds = cost.flops * config.loop.accumulation / speed
    yield f"{len(training.weights)} weight tensors learn, {learning / 1e6:.1f} million numbers."
    yield (
        f"A pair of {config.sampling.num_frames} frames of {config.method.augment.size} x "
        f"{config.method.augment.size} takes {cost.flops / 1e12:.3g} TFLOP and keeps "
        f"{cost.saved_bytes / 2**30:.2f} GiB for the backward pass (checkpointing: {config.checkpointing})."
    )
    yield f"Memory: about {memory / 2**30:.1f} GiB."
    yield (
        f"Time: about {seconds:.2f} s a step and {config.loop.steps * seconds / 3600:.1f} h for "
        f"{config.loop.steps} steps, if it reaches half of what this device's matrix products do "
        f"({2 * speed / 1e12:.2f} TFLOP/s)."
    )


def _flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Half of what a matrix product reaches here, measured for a moment."""
    size = 4096 if device.type == "cuda" else 768
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    best = math.inf
    for _ in range(4):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return size**3 / best


class _Bars:
    """Progress bars: of the latents that are encoded, then of the steps."""

    def __init__(self, training: ActionTraining, run: RunFolder, *, silent: bool) -> None:
        total = len(training.pool(run.path))
        self._entries = tqdm(desc="Encoding clips", total=total, unit="pair", disable=silent, leave=False)
        self._steps: tqdm | None = None
        self._silent, self._total = silent, training.config.loop.steps
        self._device = training.device

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()
        if self._steps is not None:
            self._steps.close()

    def entry(self) -> None:
        self._entries.update()

    def step(self, progress: Progress) -> None:
        if self._steps is None:
            self._entries.close()
            self._steps = tqdm(
                desc="Training",
                total=self._total,
                initial=progress.step - 1,
                unit="step",
                disable=self._silent,
            )
        shown = {"loss": f"{progress.loss:.4f}"}
        if self._device.type == "cuda":
            shown["GiB"] = f"{torch.cuda.max_memory_allocated(self._device) / 2**30:.1f}"
        self._steps.set_postfix(shown, refresh=False)
        self._steps.update()


class _Samples:
    """Videos on the user's own picture, on the way."""

    def __init__(
        self,
        training: ActionTraining,
        folder: Path,
        image_1HWC: Tensor | None,
        prompt: str,
        args: argparse.Namespace,
    ) -> None:
        self._training, self._folder, self._image_1HWC, self._prompt = training, folder, image_1HWC, prompt
        self._every, self._seed = args.sample_steps, args.seed

    def step(self, progress: Progress) -> None:
        if self._image_1HWC is None or progress.step % self._every:
            return
        sampler = SamplerConfig(num_frames=self._training.config.sampling.num_frames)
        frames = self._training.animate(self._image_1HWC, self._prompt, self._seed, sampler)
        write_video(self._folder / f"sample-{progress.step:06d}.mp4", frames, fps=8)


def _silent(text: str) -> None:
    pass

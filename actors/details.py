"""`python -m actors details`: what a detail decoder brings back, by branch, on clips that it has not seen."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from flash_modules.backends.diffusers import load_vae
from flash_modules.backends.diffusers.train_detail import DetailTraining, DetailTrainingConfig
from flash_modules.distortion import distort
from flash_modules.metrics import psnr, ssim
from flash_modules.training import clips as training_clips
from flash_modules.training.loop import LoopConfig
from flash_modules.training.run_folder import RunFolder
from flash_modules.training.sampling import SamplingConfig, seeded, take_frames

from .actions import ACTIONS, HELD_OUT_ACTIONS
from .clips import make_clip
from .learning import write_clip
from .looks import draw_look
from .motion import draw_motion
from .results import keep, spread
from .small_base import FOLDER

BRANCHES = {"both": (True, True), "warping alone": (True, False), "attention alone": (False, True)}
"""Rows of the paper's Table A2."""
_MOVED = 0.05
"""Pixels that differ from frame 0 by more, in any colour, have moved."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Frames 1 to the last of held-out clips against the true ones."""

    psnr: float
    ssim: float
    moving_psnr: float
    """Of the pixels that differ from frame 0."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `details`."""
    parser.description = (
        "Train detail decoders on actors, or on clips of yours, by branch and seed, and measure them on "
        "clips that they have not seen. What is done is kept: the same command goes on."
    )
    parser.set_defaults(run=measure_details)
    parser.add_argument("--out", type=Path, default=Path("out/details"), help="default %(default)s")
    parser.add_argument("--vae", type=Path, default=FOLDER, help="default: the small base's")
    parser.add_argument(
        "--clips", type=Path, help="a folder of clips in place of actors; each 4th is held out"
    )
    parser.add_argument("--size", type=int, default=128, help="default %(default)s")
    parser.add_argument("--frames", type=int, default=8, help="taken of a clip (default %(default)s)")
    parser.add_argument("--steps", type=int, default=600, help="default %(default)s")
    parser.add_argument("--lr", type=float, default=1e-3, help="default %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="default %(default)s")


def measure_details(args: argparse.Namespace) -> None:
    """Train and measure what is not done yet, and print the table."""
    taught, unseen = split_clips(args.clips or write_actors(args.out / "clips"))
    rows: dict[str, list[Quality]] = {}
    for seed in range(args.seeds):
        for name, (warping, attention) in tqdm(BRANCHES.items(), desc=f"Seed {seed}", unit="run"):
            config = DetailTrainingConfig(
                size=args.size,
                warping=warping,
                attention=attention,
                sampling=SamplingConfig(num_frames=args.frames, stride=None),
                loop=LoopConfig(steps=args.steps, learning_rate=args.lr, keep=1),
                seed=seed,
            )
            training = DetailTraining(load_vae(args.vae), args.vae.stem, taught, config, torch.device("cpu"))
            folder = args.out / f"{name.replace(' ', '-')}-seed{seed}-{args.steps}"
            for row, quality in result(training, unseen, folder, name).items():
                if quality not in rows.setdefault(row, []):  # rows without a decoder are the same each time
                    rows[row].append(quality)
    print(table(rows))


def write_actors(folder: Path) -> Path:
    """Clips of actors: seen actions in seen looks; each 4th is a held-out action in a held-out look."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = [action for action in ACTIONS if action not in HELD_OUT_ACTIONS]
    for i in range(32):
        held_out = i % 4 == 3
        action = HELD_OUT_ACTIONS[i // 4 % len(HELD_OUT_ACTIONS)] if held_out else seen[i % len(seen)]
        clip = make_clip(draw_motion(action, 3 * 10**6 + i), draw_look(3 * 10**6 + i, held_out))
        write_clip(folder / f"{i:02d}.mp4", clip)
    return folder


def split_clips(folder: Path) -> tuple[list[training_clips.Clip], list[training_clips.Clip]]:
    """Clips to learn from, and each 4th, which is kept from learning."""
    found = training_clips.find_clips([folder]).used
    unseen = found[3::4]
    if not unseen:
        raise ValueError(
            f"{folder} holds {len(found)} clips: 4 or more are needed, for each 4th is held out."
        )
    return [clip for clip in found if clip not in unseen], list(unseen)


def result(
    training: DetailTraining, unseen: Sequence[training_clips.Clip], folder: Path, name: str
) -> Mapping[str, Quality]:
    """Rows of one decoder, from its folder if they are there, else made and kept there."""
    file = folder / "result.json"
    if not file.is_file():
        run = RunFolder(folder, "run", training.settings(1))
        with tqdm(total=training.config.loop.steps, unit="step", leave=False) as bar:
            training.run(run, on_step=lambda progress: bar.update(progress.step - bar.n))
        made = {row: asdict(quality) for row, quality in measure(training, unseen, name)}
        keep(file, made)
    read = json.loads(file.read_text(encoding="utf-8"))
    return {row: Quality(**values) for row, values in read.items()}


@torch.no_grad()
def measure(
    training: DetailTraining, unseen: Sequence[training_clips.Clip], name: str
) -> Iterator[tuple[str, Quality]]:
    """Rows: frame 0 again and again; the VAE alone and with the decoder, of true and of distorted clips."""
    videos: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for i, clip in enumerate(unseen):
        true_FCHW = clip.read(take_frames(clip, training.config.sampling, seeded(i)).indices)
        true_FCHW = _square(true_FCHW, training.config.size)
        first_1CHW, later_FCHW = true_FCHW[:1], true_FCHW[1:]
        videos.setdefault("copies of frame 0", []).append((first_1CHW.expand_as(later_FCHW), true_FCHW))
        bent_FCHW = distort(later_FCHW, training.config.distortion, seeded(i, "exam"))
        for kind, shown_FCHW in (("", later_FCHW), (", distorted", bent_FCHW)):
            for row, strength in ((f"VAE alone{kind}", 0.0), (f"{name}{kind}", 1.0)):
                mended = [
                    training.rebuild(frame, first_1CHW, strength) for frame in torch.split(shown_FCHW, 1)
                ]
                videos.setdefault(row, []).append((torch.cat(mended).clamp(0, 1), true_FCHW))
    for row, pairs in videos.items():
        yield row, _quality(pairs)


def _square(video_FCHW: Tensor, size: int) -> Tensor:
    """The middle of the video, in this size."""
    side = min(video_FCHW.shape[-2:])
    top, left = ((length - side) // 2 for length in video_FCHW.shape[-2:])
    middle_FCHW = video_FCHW[..., top : top + side, left : left + side]
    return torch.nn.functional.interpolate(middle_FCHW, (size, size), mode="bilinear", antialias=True)


def _quality(pairs: Sequence[tuple[Tensor, Tensor]]) -> Quality:
    """Means over clips of (frames 1 to the last, true frames from 0 on)."""
    as_frames = [
        (rearrange(made, "f c h w -> f h w c"), rearrange(true[1:], "f c h w -> f h w c"))
        for made, true in pairs
    ]
    moving = []
    for made_FCHW, true_FCHW in pairs:
        moved_FHW = ((true_FCHW[1:] - true_FCHW[:1]).abs() > _MOVED).any(dim=1)
        off = (made_FCHW - true_FCHW[1:]).square().mean(dim=1)[moved_FHW]
        if len(off):
            moving.append(float(-10 * off.mean().clamp(min=1e-10).log10()))
    return Quality(
        psnr=fmean(psnr(made, true) for made, true in as_frames),
        ssim=fmean(ssim(made, true) for made, true in as_frames),
        moving_psnr=fmean(moving),
    )


def table(rows: Mapping[str, Sequence[Quality]]) -> str:
    """One row for each: mean ± standard deviation over seeds."""
    lines = ["| | PSNR, dB ↑ | SSIM ↑ | PSNR of moving pixels, dB ↑ |", "| --- | --- | --- | --- |"]
    for row, qualities in rows.items():
        cells = [
            spread([getattr(quality, field) for quality in qualities], digits)
            for field, digits in (("psnr", 2), ("ssim", 4), ("moving_psnr", 2))
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)

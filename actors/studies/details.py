"""`python -m actors details`: what a detail decoder brings back, by branch, on clips that it has not seen."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from flash_modules.backends.diffusers.sd15 import (
    decode_frames,
    decode_frames_with_details,
    encode_picture,
    load_vae,
    make_detail_decoder,
)
from flash_modules.backends.diffusers.sd15.train.detail import DiffusersVae, detail_training
from flash_modules.evaluation.metrics import psnr, ssim
from flash_modules.flash.augment import Augmentation, crop
from flash_modules.flash.decoder_file import read_detail_decoder
from flash_modules.flash.detail_decoder import DetailDecoder
from flash_modules.flash.distortion import DistortionConfig, distort
from flash_modules.flash.training.detail_training import DetailTraining, DetailTrainingConfig
from flash_modules.training import clips as training_clips
from flash_modules.training.sampling import SamplingConfig, seeded, take_frames

from ..base.sizes import IMAGE_SIZE
from ..base.small_base import FOLDER, SmallBase, load_small_base
from ..world.actions import ACTIONS, HELD_OUT_ACTIONS
from ..world.clips import make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .learning import learn, write_clip
from .results import kept, spread

BRANCHES = {"both": (True, True), "warping alone": (True, False), "attention alone": (False, True)}
"""Rows of the paper's Table A2."""
_MIDDLE = Augmentation(flip=False, zoom=1.0, top=0.5, left=0.5, kernel=1, colours=())
"""The largest square in the middle, in its own colours."""
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
    parser.add_argument(
        "--num", type=int, default=128, help="clips of actors, with those held out (default %(default)s)"
    )
    parser.add_argument("--size", type=int, default=IMAGE_SIZE, help="default %(default)s")
    parser.add_argument("--frames", type=int, default=8, help="taken of a clip (default %(default)s)")
    parser.add_argument(
        "--width", type=int, default=16, help="channels inside the branches (default %(default)s)"
    )
    parser.add_argument("--frames-per-step", type=int, default=1, help="default %(default)s")
    parser.add_argument("--steps", type=int, default=600, help="default %(default)s")
    parser.add_argument("--lr", type=float, default=4e-4, help="default %(default)s")
    parser.add_argument(
        "--seeds", type=int, default=3, help="0 = train none, measure alone (default %(default)s)"
    )
    parser.add_argument(
        "--branches", nargs="+", choices=BRANCHES, default=[*BRANCHES], help="default: all", metavar="ROW"
    )
    parser.add_argument("--decoder", type=Path, help="a decoder that is there already, to measure it too")


def measure_details(args: argparse.Namespace) -> None:
    """Train and measure what is not done yet, and print the table."""
    taught, unseen = split_clips(args.clips or write_actors(args.out / "clips", args.num, args.size))
    sampling = SamplingConfig(num_frames=args.frames, stride=None)
    vae = load_vae(args.vae)
    base = load_small_base(args.vae) if args.clips is None and (args.vae / "unet").is_dir() else None
    cases = [
        make_case(clip, i, sampling, args.size, vae, base)
        for i, clip in enumerate(tqdm(unseen, desc="Held-out clips", unit="clip", leave=False))
    ]
    rows = {row: [quality] for row, quality in measure_plain(vae, cases).items()}
    if args.decoder:
        decoder = make_detail_decoder(vae, read_detail_decoder(args.decoder))
        found = measure(decode_with(vae, decoder), cases)
        rows |= {args.decoder.stem + kind: [quality] for kind, quality in found.items()}
    for seed in range(args.seeds):
        for name in tqdm(args.branches, desc=f"Seed {seed}", unit="run"):
            warping, attention = BRANCHES[name]
            config = DetailTrainingConfig(
                size=args.size,
                frames=args.frames_per_step,
                width=args.width,
                warping=warping,
                attention=attention,
                sampling=sampling,
                loop=replace(DetailTrainingConfig().loop, steps=args.steps, learning_rate=args.lr, keep=1),
                seed=seed,
            )
            training = detail_training(load_vae(args.vae), args.vae.stem, taught, config, torch.device("cpu"))
            folder = args.out / f"{name.replace(' ', '-')}-seed{seed}-{args.steps}"
            for kind, quality in result(training, cases, folder).items():
                rows.setdefault(name + kind, []).append(quality)
    print(table(rows))


def write_actors(folder: Path, num: int, size: int = IMAGE_SIZE) -> Path:
    """Clips of actors from nearby, in seen looks; each 4th shows a held-out action in a held-out look."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = [action for action in ACTIONS if action not in HELD_OUT_ACTIONS]
    for i in range(num):
        held_out = i % 4 == 3
        action = HELD_OUT_ACTIONS[i // 4 % len(HELD_OUT_ACTIONS)] if held_out else seen[i % len(seen)]
        motion, look = draw_motion(action, 3 * 10**6 + i, close=True), draw_look(3 * 10**6 + i, held_out)
        clip = make_clip(motion, look, size=size)
        write_clip(folder / f"{i:03d}.webp", clip)
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


@dataclass(frozen=True, kw_only=True)
class Case:
    """A held-out clip, in [0, 1], and the latents that its frames are to be decoded from."""

    first_1CHW: Tensor
    true_FCHW: Tensor
    """The frames after the first."""
    latents: Mapping[str, Tensor]
    """Scaled latents (F, C, h, w) of those frames, by what they come from: "" are the true frames."""


def make_case(
    clip: training_clips.Clip,
    number: int,
    sampling: SamplingConfig,
    size: int,
    vae: AutoencoderKL,
    base: SmallBase | None = None,
) -> Case:
    """The middle of a clip, in this size; with a base also as that draws it."""
    video_FCHW = clip.read(take_frames(clip, sampling, seeded(number)).indices)
    video_FCHW = crop(video_FCHW, (size, size), _MIDDLE)
    distorted_FCHW = distort(video_FCHW[1:], DistortionConfig(), seeded(number, "exam"))
    encoded_FCHW, wrong_FCHW = (
        encode_picture(vae, rearrange(video, "f c h w -> f h w c")) for video in (video_FCHW, distorted_FCHW)
    )
    latents = {"": encoded_FCHW[1:], ", distorted": wrong_FCHW}
    if base:
        latents[", redrawn by the base"] = base.redraw(encoded_FCHW, clip.caption, number)[1:]
    return Case(first_1CHW=video_FCHW[:1], true_FCHW=video_FCHW[1:], latents=latents)


def result(
    training: DetailTraining[DiffusersVae], cases: Sequence[Case], folder: Path
) -> Mapping[str, Quality]:
    """Qualities of one decoder, from its folder if they are there, else made and kept there."""

    def make() -> dict[str, Any]:
        learn(training, folder)
        found = measure(decode_with(training.host.vae, training.decoder), cases)
        return {kind: asdict(quality) for kind, quality in found.items()}

    read = kept(folder / "result.json", {**training.settings(1), "cases": len(cases)}, make)
    return {kind: Quality(**values) for kind, values in read.items()}


def measure_plain(vae: AutoencoderKL, cases: Sequence[Case]) -> Mapping[str, Quality]:
    """Rows without a decoder: frame 0 again and again, and the VAE alone."""
    copies = measure(lambda latents_FCHW, first_1CHW: first_1CHW.expand(len(latents_FCHW), -1, -1, -1), cases)
    alone = measure(lambda latents_FCHW, first_1CHW: _stacked(decode_frames(vae, latents_FCHW)), cases)
    found = {f"VAE alone{kind}": quality for kind, quality in alone.items()}
    return {"copies of frame 0": copies[""], **found}


Decode = Callable[[Tensor, Tensor], Tensor]
"""``decode(latents_FCHW, first_1CHW) -> frames_FCHW``, in [0, 1]."""


def decode_with(vae: AutoencoderKL, decoder: DetailDecoder) -> Decode:
    """Decoding with details of the first frame, as `animate` and the node do it."""

    def decode(latents_FCHW: Tensor, first_1CHW: Tensor) -> Tensor:
        first_1HWC = rearrange(first_1CHW, "1 c h w -> 1 h w c")
        frames = decode_frames_with_details(vae, decoder, latents_FCHW, first_1HWC, keep_first=False)
        return _stacked(frames)

    return decode


def _stacked(frames: Iterator[Tensor]) -> Tensor:
    return torch.stack([rearrange(frame, "h w c -> c h w") for frame in frames])


def measure(decode: Decode, cases: Sequence[Case]) -> Mapping[str, Quality]:
    """Means over clips, by what the latents come from."""
    return {
        kind: _quality([decode(case.latents[kind], case.first_1CHW) for case in cases], cases)
        for kind in cases[0].latents
    }


def _quality(decoded: Sequence[Tensor], cases: Sequence[Case]) -> Quality:
    whole, structure, moving = [], [], []
    for made_FCHW, case in zip(decoded, cases, strict=True):
        made_FHWC, true_FHWC, first_1HWC = (
            rearrange(video, "f c h w -> f h w c") for video in (made_FCHW, case.true_FCHW, case.first_1CHW)
        )
        whole.append(psnr(made_FHWC, true_FHWC))
        structure.append(ssim(made_FHWC, true_FHWC))
        moved_FHW = ((true_FHWC - first_1HWC).abs() > _MOVED).any(dim=-1)
        if moved_FHW.any():
            made, true = (rearrange(v[moved_FHW], "n c -> 1 1 n c") for v in (made_FHWC, true_FHWC))
            moving.append(psnr(made, true))
    return Quality(psnr=fmean(whole), ssim=fmean(structure), moving_psnr=fmean(moving))


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

"""`python -m actors redrawn`: how well motion can be read at all from what the small base draws."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from diffusers.training_utils import compute_snr
from torch import Tensor
from tqdm import tqdm

from flash_modules.backends.diffusers.sd15 import encode_picture

from ..base.schedule import ddim_scheduler
from ..base.small_base import FOLDER, SmallBase, load_small_base
from ..judge.measures import Scores, gap_closed, mean_looks, read_standard, score
from ..judge.reader import Reader, load_reader
from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import NUM_TRUTHS, clip_video, true_clips
from ..world.looks import draw_look
from ..world.motion import draw_motion

_SEED = 41 * 10**5
"""Of the first picture; nothing was trained on it or those after it."""
_TIMESTEPS = (251, 451, 651)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `redrawn`."""
    parser.description = (
        "Draw true videos of held-out actions again from noise of several timesteps, and measure them like "
        "generated ones: their motion is known to be right, so what is wrong is the drawing."
    )
    parser.set_defaults(run=print_table)
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument(
        "--close",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="film from nearby, as the base saw people (default), or not",
    )
    parser.add_argument("--pictures", type=int, default=3, help="for each action (default %(default)s)")


def print_table(args: argparse.Namespace) -> None:
    """Joint error, (recognised), what the noise still told of the motion, and how much of the way from a
    still picture's joint error to the VAE's own is closed, action by action."""
    reader, base = load_reader(), load_small_base(args.base).to(args.device)
    columns = ["", "still", "floor", "true", "VAE", *(f"from {timestep}" for timestep in _TIMESTEPS)]
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for action in tqdm(HELD_OUT_ACTIONS, desc="Drawing again", unit="action", leave=False):
        pictures = [[*_measure(base, reader, action, i, args.close)] for i in range(args.pictures)]
        first = [of_picture[0].scores for of_picture in pictures]
        cells = [fmean(s.still_error for s in first), fmean(s.joint_floor for s in first)]
        true, rebuilt, *drawn = zip(*pictures, strict=True)
        whole_way = cells[0], fmean(m.scores.joint_error for m in rebuilt)
        found = [*map(_cell, (true, rebuilt)), *(_cell(same, whole_way) for same in drawn)]
        print(f"| {action} | {' | '.join([*(f'{cell:.1f}' for cell in cells), *found])} |")


@dataclass(frozen=True)
class _Measured:
    scores: Scores
    told: float | None = None
    """log p(noisy latents | true video) - log p(noisy latents | nearest other true continuation), the mean
    over noise and frames, in nats: how surely the noise that it was drawn from still shows the motion."""


def _cell(same: Sequence[_Measured], whole_way: tuple[float, float] | None = None) -> str:
    """Means over pictures, and how much of the whole way from one joint error to another is gone."""
    read = f"{fmean(m.scores.joint_error for m in same):.1f} ({fmean(m.scores.recognised for m in same):.2f})"
    if whole_way is None:
        return read
    closed = gap_closed(whole_way[0], fmean(m.scores.joint_error for m in same), whole_way[1])
    told = fmean(m.told for m in same if m.told is not None)
    return f"{read}, {told:.1f}, {closed:.0%}"


@torch.inference_mode()
def _measure(base: SmallBase, reader: Reader, action: str, number: int, close: bool) -> Iterator[_Measured]:
    """A true video beside others of the same picture: as it is, rebuilt, and drawn again."""
    motion, look = draw_motion(action, _SEED + number, close), draw_look(_SEED + number)
    *truths, other = true_clips(motion, look, seed=number, num=NUM_TRUTHS + 1, size=base.size)
    standard, looks_LE = read_standard(truths, reader=reader), mean_looks(reader, truths)
    *truths_FCHW, other_FCHW = (encode_picture(base.base.vae, clip_video(clip)) for clip in (*truths, other))

    def scores(video_FHWC: Tensor) -> Scores:
        return score(video_FHWC, standard, looks_LE, reader=reader)

    yield _Measured(scores(clip_video(other)))
    yield _Measured(scores(base.decode(other_FCHW)))
    apart = min((other_FCHW - true_FCHW)[1:].square().sum() for true_FCHW in truths_FCHW)
    snrs = compute_snr(ddim_scheduler(base.base.prediction), torch.tensor(_TIMESTEPS))
    for timestep, snr in zip(_TIMESTEPS, snrs, strict=True):
        drawn_FCHW = base.redraw(other_FCHW, other.caption, seed=1, timestep=timestep)
        told = (snr * apart / 2 / (len(drawn_FCHW) - 1)).item()
        yield _Measured(scores(base.decode(drawn_FCHW)), told)

"""`python -m actors redrawn`: how well motion can be read at all from what the small base draws."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from tqdm import tqdm

from flash_modules.backends.diffusers import decode_frames, encode_picture

from .actions import HELD_OUT_ACTIONS
from .clips import NUM_TRUTHS, true_clips
from .looks import draw_look
from .measures import Scores, mean_looks, read_standard, score
from .motion import draw_motion
from .reader import Reader, clip_video, load_reader
from .small_base import FOLDER, SmallBase, load_small_base

_SEED = 41 * 10**5
"""Of the first picture; nothing was trained on it or those after it."""
_TIMESTEPS = (300, 500, 700)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `redrawn`."""
    parser.description = (
        "Draw true videos of held-out actions again from noise of several timesteps, and measure them like "
        "generated ones: their motion is known to be right, so what is wrong is the drawing."
    )
    parser.set_defaults(run=print_table)
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=3, help="for each action (default %(default)s)")


def print_table(args: argparse.Namespace) -> None:
    """Joint error and recognition, action by action."""
    reader, base = load_reader(), load_small_base(args.base)
    columns = ["", "still", "floor", "true", "VAE", *(f"from {timestep}" for timestep in _TIMESTEPS)]
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for action in tqdm(HELD_OUT_ACTIONS, desc="Drawing again", unit="action", leave=False):
        pictures = [[*_measure(base, reader, action, i)] for i in range(args.pictures)]
        first = [scores[0] for scores in pictures]
        cells = [fmean(s.still_error for s in first), fmean(s.joint_floor for s in first)]
        found = [
            f"{fmean(s.joint_error for s in same):.1f} ({fmean(s.recognised for s in same):.2f})"
            for same in zip(*pictures, strict=True)
        ]
        print(f"| {action} | {' | '.join([*(f'{cell:.1f}' for cell in cells), *found])} |")


def _measure(base: SmallBase, reader: Reader, action: str, number: int) -> Iterator[Scores]:
    """A true video beside others of the same picture: as it is, rebuilt, and drawn again."""
    motion, look = draw_motion(action, _SEED + number), draw_look(_SEED + number)
    *truths, other = true_clips(motion, look, seed=number, num=NUM_TRUTHS + 1)
    standard, looks_LE = read_standard(truths, reader=reader), mean_looks(reader, truths)
    for video_FHWC in _videos(base, clip_video(other), other.caption):
        yield score(video_FHWC, standard, looks_LE, reader=reader)


@torch.inference_mode()
def _videos(base: SmallBase, true_FHWC: Tensor, caption: str) -> Sequence[Tensor]:
    latents_FCHW = encode_picture(base.base.vae, true_FHWC)
    drawn = [base.redraw(latents_FCHW, caption, seed=1, timestep=timestep) for timestep in _TIMESTEPS]
    return [
        true_FHWC,
        *(torch.stack([*decode_frames(base.base.vae, latents)]) for latents in (latents_FCHW, *drawn)),
    ]

"""`python -m actors page`: what actors look like and what the small base knows, with figures."""

import argparse
import html
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from flash_modules.evaluation.metrics import psnr, ssim
from flash_modules.evaluation.web import animation, page
from flash_modules.files.video_files import as_picture

from ..base.small_base import FOLDER, SmallBase, load_small_base
from ..judge.measures import Scores, markdown_table, mean_looks, read_standard, score
from ..judge.reader import WEIGHTS as READER
from ..judge.reader import Reader, load_reader
from ..world.actions import ACTIONS, EXTRA_MOTIONS, HELD_OUT_ACTIONS
from ..world.clips import NUM_TRUTHS, Clip, clip_video, make_clip, true_clips
from ..world.looks import draw_look
from ..world.motion import FPS, draw_motion

FRESH = 10**6
"""Seeds from here on are of clips that no model was trained on."""


@dataclass(frozen=True)
class Sample:
    """A generated video beside one of its truths."""

    action: str
    truth: Clip
    video_FHWC: Tensor
    scores: Scores
    true_scores: Scores
    """Of another true continuation: the best that can be had."""

    @property
    def held_out(self) -> bool:
        return self.action in HELD_OUT_ACTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `page`."""
    parser.set_defaults(run=write_page)
    parser.add_argument("--out", type=Path, default=Path("out/actors.html"), help="default %(default)s")
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--reader", type=Path, default=READER, help="the reader's file (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=2, help="animated per action (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other pictures (default %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument(
        "--close",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="film from nearby, as the base saw people (default), or not",
    )
    parser.add_argument("--sheet", type=Path, help="also a picture: a video of each action below its truth")


def write_page(args: argparse.Namespace) -> None:
    """Measure the small base, write the page, and print its tables."""
    start = time.monotonic()
    reader, base = load_reader(args.reader), load_small_base(args.base).to(args.device)
    samples = list(draw_samples(base, reader, args.pictures, args.seed, close=args.close))
    tables = [*_tables(base, reader, samples, close=args.close)]
    minutes = (time.monotonic() - start) / 60
    tables.append(f"{minutes:.1f} minutes on {torch.get_num_threads()} threads.")
    print("\n\n".join(tables))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(_page(samples, tables, close=args.close), encoding="utf-8")
    print(f"Wrote {args.out}")
    if args.sheet:
        as_picture(contact_sheet(samples)).save(args.sheet)


def draw_samples(
    base: SmallBase, reader: Reader, pictures: int, seed: int, *, close: bool = False
) -> Iterator[Sample]:
    """Videos of every action that go on from pictures which nobody was trained on."""
    others = [_fresh_clip(action, seed + 500 + n, close=close) for n, action in enumerate(ACTIONS)]
    training = mean_looks(reader, others)
    work = [(action, i) for action in ACTIONS for i in range(pictures)]
    for n, (action, i) in enumerate(tqdm(work, desc="Animating", unit="video")):
        motion, look = draw_motion(action, FRESH + seed + i, close), draw_look(FRESH + seed + n)
        *truths, other = true_clips(motion, look, seed=seed, num=NUM_TRUTHS + 1, size=base.size)
        standard, video_FHWC = read_standard(truths, reader=reader), base.animate(truths[0], seed=seed + i)
        made, true = (
            score(video, standard, training, reader=reader) for video in (video_FHWC, clip_video(other))
        )
        yield Sample(action, truths[0], video_FHWC, made, true)


def _fresh_clip(
    action: str, seed: int, *, held_out: bool = False, close: bool = False, size: int = 128
) -> Clip:
    motion, look = draw_motion(action, FRESH + seed, close), draw_look(FRESH + seed, held_out)
    return make_clip(motion, look, size=size)


def _tables(base: SmallBase, reader: Reader, samples: Sequence[Sample], *, close: bool) -> Iterator[str]:
    groups = {"seen actions": False, "held-out actions": True}
    rows = {name: [s.scores for s in samples if s.held_out is flag] for name, flag in groups.items()}
    yield markdown_table({**rows, "true videos": [s.true_scores for s in samples]})
    yield markdown_table({action: [s.scores for s in samples if s.action == action] for action in ACTIONS})
    lines = ["| VAE, frames rebuilt | PSNR, dB | SSIM |", "| --- | --- | --- |"]
    for name, held_out in (("seen looks", False), ("held-out looks", True)):
        clips = [
            _fresh_clip(action, 900, held_out=held_out, close=close, size=base.size) for action in ACTIONS
        ]
        pairs = [(base.rebuilt(clip), clip_video(clip)) for clip in clips]
        values = [fmean(measure(*pair) for pair in pairs) for measure in (psnr, ssim)]
        lines.append(f"| {name} | {values[0]:.1f} | {values[1]:.3f} |")
    yield "\n".join(lines)


def contact_sheet(samples: Sequence[Sample]) -> Tensor:
    """Every other frame (H, W, 3) of one video of each action, truth above, two actions beside each other."""
    firsts: dict[str, Sample] = {}
    for sample in samples:
        firsts.setdefault(sample.action, sample)
    pairs = [
        torch.stack([clip_video(sample.truth), sample.video_FHWC])[:, ::2]
        for sample in sorted(firsts.values(), key=lambda sample: sample.held_out)
    ]
    return rearrange(torch.stack(pairs), "(rows two) kinds f h w c -> (rows kinds h) (two f w) c", two=2)


def _page(samples: Sequence[Sample], tables: Sequence[str], *, close: bool) -> str:
    actors = [
        animation(clip_video(_fresh_clip(action, 20 * i + j, held_out=j == 3, close=close)), action, FPS)
        for i, action in enumerate((*ACTIONS, *EXTRA_MOTIONS))
        for j in range(4)
    ]
    made = []
    for sample in sorted(samples, key=lambda s: s.held_out):
        known = "held out" if sample.held_out else "seen"
        made += [
            animation(clip_video(sample.truth), f"{sample.action} ({known}): truth", FPS),
            animation(sample.video_FHWC, f"small base, joint error {sample.scores.joint_error:.1f} %", FPS),
        ]
    body = (
        "<h2>Every action in four looks; the fourth is one that the small base has never seen</h2>"
        f"<div>{''.join(actors)}</div>"
        "<h2>Pictures animated by the small base, beside one true continuation</h2>"
        f"<div>{''.join(made)}</div>"
        f"<h2>Figures</h2>{''.join(f'<pre>{html.escape(text)}</pre>' for text in tables)}"
    )
    return page("Actors and the small base", body, columns=8)

"""`python -m actors agreement`: which scores of `evaluate` agree with the judge that knows the truth.

An action is learned, and pictures perform it before and at several steps of learning. Each video gets the
scores that need no network, and the judge's; Spearman's rank correlation says whether they put the videos in
one order. What a lesson gave is kept: the same command goes on.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from flash_modules.backends.diffusers.sd15 import decode_frames
from flash_modules.backends.diffusers.sd15.train.action import DiffusersHost
from flash_modules.evaluation import measures
from flash_modules.evaluation.judges.load import Judges
from flash_modules.evaluation.looks import looks
from flash_modules.flash.training.action_training import ActionTraining
from flash_modules.flash.training.method import VARIANTS

from ..base.small_base import SAMPLER
from ..judge.measures import Scores, Standard, mean_looks, score
from ..judge.reader import load_reader
from ..world.actions import HELD_OUT_ACTIONS
from ..world.clips import Clip, clip_video
from .learning import Evaluation, Lesson, learn, prepare
from .results import kept

OURS = (
    measures.AGREEMENT,
    measures.HISTOGRAM,
    measures.JUMP,
    measures.FLICKER,
    measures.LIKENESS,
    measures.LEAK,
)
THEIRS: Mapping[str, Callable[[Scores], float]] = {
    "joint error ↓": lambda scores: scores.joint_error,
    "flow cosine ↑": lambda scores: scores.flow_cosine,
    "recognised ↑": lambda scores: scores.recognised,
    "likeness ↑": lambda scores: scores.likeness,
    "leak ↓": lambda scores: scores.leak,
}
_NONE = Judges()
_RESAMPLES = 1000


@dataclass(frozen=True)
class Judged:
    """One video: the picture that it begins with, our scores by key, and the judge's."""

    picture: str
    ours: Mapping[str, float]
    theirs: Scores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agreement`."""
    parser.set_defaults(run=measure)
    parser.add_argument(
        "--actions",
        nargs="+",
        choices=HELD_OUT_ACTIONS,
        default=[HELD_OUT_ACTIONS[0]],
        help="learned one by one (default %(default)s)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        type=int,
        choices=VARIANTS,
        default=[5],
        help="of the paper's Table 2, learned one by one (default %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=60, help="of learning (default %(default)s)")
    parser.add_argument("--every", type=int, default=20, help="steps between videos (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=4, help="animated each time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other clips (default %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/agreement"), help="default %(default)s")


def measure(args: argparse.Namespace) -> None:
    """Learn, judge all videos, and print the table."""
    judged: list[Judged] = []
    for action, variant in product(args.actions, args.variants):
        before = variant == args.variants[0]  # what was learned is the same nothing for all
        lesson = Lesson(actions=(action,), method=VARIANTS[variant], steps=args.steps, seed=args.seed)
        folder = args.out / f"{action.replace(' ', '-')}-{variant}-{args.steps}-{args.seed}"
        judged += _videos(lesson, folder, args, before=before)
    print("\n".join(agreement_table(judged)))


def _videos(lesson: Lesson, folder: Path, args: argparse.Namespace, *, before: bool) -> list[Judged]:
    """All videos of a lesson, with those before it if asked for; from its folder if it is there."""
    action = lesson.actions[0]

    def make() -> list[dict[str, Any]]:
        training = prepare(lesson, folder, device=args.device)
        evaluation = Evaluation(action, load_reader(), num_pictures=args.pictures)
        taught = lesson.clips[action]
        held = [_held(standard, taught) for standard in evaluation.standards]
        judged: list[Judged] = []

        def judge(step: int) -> None:
            if step % args.every == 0:
                judged.extend(_judged(training, evaluation, held, taught))

        if before:
            judge(0)
        learn(training, folder, judge)
        return [asdict(video) for video in judged]

    settings = {**lesson.settings, "every": args.every, "pictures": args.pictures, "before": before}
    read = kept(folder / "result.json", settings, make)
    return [
        Judged(picture=video["picture"], ours=video["ours"], theirs=Scores(**video["theirs"]))
        for video in read
    ]


@torch.inference_mode()
def _judged(
    training: ActionTraining[DiffusersHost],
    evaluation: Evaluation,
    held: Sequence[measures.Standard],
    taught: Sequence[Clip],
) -> Iterator[Judged]:
    looks_LE = mean_looks(evaluation.reader, taught)
    for i, standard in enumerate(tqdm(evaluation.standards, desc="Judging", unit="video", leave=False)):
        caption = standard.truths[0].caption
        latents_FCHW = training.animate_latents(standard.reference_1HWC, caption, i, SAMPLER)
        video_FHWC = torch.stack([*decode_frames(training.host.base.vae, latents_FCHW)]).cpu()
        theirs = score(video_FHWC, standard, looks_LE, reader=evaluation.reader)
        ours = measures.score(video_FHWC, measures.features(video_FHWC, _NONE), held[i], _NONE)
        yield Judged(picture=f"{caption} {i}", ours=ours, theirs=theirs)


def _held(standard: Standard, taught: Sequence[Clip]) -> measures.Standard:
    """What our scores hold a video against, where the judge has this."""
    return measures.Standard(
        picture_1HWC=standard.reference_1HWC,
        others=[measures.features(clip_video(truth), _NONE) for truth in standard.truths],
        training_LKQ=[look_KQ for clip in taught for look_KQ in looks(clip_video(clip)[:1])],
    )


def agreement_table(judged: Sequence[Judged]) -> Iterator[str]:
    """Lines of Markdown: rank correlations of our scores (rows) and the judge's, with 95 % intervals."""
    groups = [
        [one for one in judged if one.picture == picture] for picture in {one.picture: 0 for one in judged}
    ]
    yield f"| {len(judged)} videos of {len(groups)} pictures | {' | '.join(THEIRS)} |"
    yield f"| --- |{' --- |' * len(THEIRS)}"
    for ours in OURS:
        cells = []
        for theirs in THEIRS.values():
            pairs = [[(one.ours[ours.key], theirs(one.theirs)) for one in group] for group in groups]
            low, high = interval(pairs)
            found = spearman(*zip(*chain(*pairs), strict=True))
            cells.append(f"{found:+.2f} ({low:+.2f} to {high:+.2f})")
        yield f"| {ours.heading} | {' | '.join(cells)} |"


def spearman(values: Sequence[float], others: Sequence[float]) -> float:
    """Spearman's rank correlation in [-1, 1], ties sharing their ranks; 0 where one has one value alone."""
    own, other = _ranks(values), _ranks(others)
    mean = fmean(own)
    products = sum((a - mean) * (b - mean) for a, b in zip(own, other, strict=True))
    size = (sum((a - mean) ** 2 for a in own) * sum((b - mean) ** 2 for b in other)) ** 0.5
    return products / size if size else 0.0


def interval(pairs: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """The 95 % interval of the rank correlation, by resampling pictures, each with the pairs of its videos.

    Videos of one picture are alike, so that resampling them one by one would promise too much.
    """
    draw = random.Random(0)
    resampled = (chain(*draw.choices(pairs, k=len(pairs))) for _ in range(_RESAMPLES))
    found = sorted(spearman(*zip(*some, strict=True)) for some in resampled)
    return found[round(0.025 * _RESAMPLES)], found[round(0.975 * _RESAMPLES) - 1]


def _ranks(values: Sequence[float]) -> list[float]:
    """Places in order, from 1; equal values share the mean of theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]

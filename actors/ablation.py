"""`python -m actors ablate`: held-out actions learned by variants of the method, measured in new looks."""

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from flash_modules.training.presets import VARIANTS

from .actions import HELD_OUT_ACTIONS
from .learning import Exam, Lesson, learn, prepare
from .measures import Scores, gap_closed
from .reader import Reader, load_reader
from .results import kept, spread
from .small_base import FOLDER

BEFORE = 0
"""In place of a variant: the small base, before anything is learned."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one run."""

    loss: float | None
    """Of a video in training, at the end; none before learning."""
    noise_error: float
    """In looks that nobody has seen."""
    scores: Sequence[Scores]
    """Of videos in those looks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ablate`."""
    parser.description = (
        "Learn actions that the small base has never seen, by variants of the paper's Table 2, and measure "
        "them in looks that it has never seen. What is done is kept: the same command goes on."
    )
    parser.set_defaults(run=ablate)
    parser.add_argument("--out", type=Path, default=Path("out/ablation"), help="default %(default)s")
    parser.add_argument(
        "--actions", nargs="+", choices=HELD_OUT_ACTIONS, default=HELD_OUT_ACTIONS, metavar="NAME"
    )
    parser.add_argument("--variants", nargs="+", type=int, choices=VARIANTS, default=[*VARIANTS])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument("--steps", type=int, default=Lesson.steps, help="of a run (default %(default)s)")
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--hours", type=float, default=12.0, help="begin no run after these (default 12)")


def ablate(args: argparse.Namespace) -> None:
    """Do what is not done yet, as long as time allows, and print the table of all that is done."""
    end = time.monotonic() + 3600 * args.hours
    reader = load_reader()
    plan = [
        (action, variant, seed)
        for seed in range(args.seeds)
        for action in args.actions
        for variant in (BEFORE, *args.variants)
    ]
    results: dict[int, list[Result]] = {variant: [] for variant in (BEFORE, *args.variants)}
    for action, variant, seed in tqdm(plan, desc="Ablation", unit="run"):
        if time.monotonic() > end:
            break
        lesson = Lesson(action=action, method=VARIANTS.get(variant, VARIANTS[1]), seed=seed, steps=args.steps)
        folder = args.out / f"{action.replace(' ', '-')}-{variant}-seed{seed}-{args.steps}"
        results[variant].append(result(lesson, folder, reader, args.base, trained=variant != BEFORE))
    print(table(results))
    left = len(plan) - sum(map(len, results.values()))
    print(f"{left} of {len(plan)} runs were not begun." if left else f"All {len(plan)} runs are done.")


def result(lesson: Lesson, folder: Path, reader: Reader, base: Path = FOLDER, *, trained: bool) -> Result:
    """The result of a lesson, from its folder if it is there, else made and kept there."""

    def make() -> dict[str, Any]:
        training, exam = prepare(lesson, folder, base), Exam(lesson.action, reader)
        if trained:
            learn(training, folder)
        made = Result(
            loss=_last_loss(folder / "run" / "loss.csv", lesson) if trained else None,
            noise_error=exam.noise_error(training),
            scores=exam.scores(training, lesson.clips),
        )
        return asdict(made)

    read = kept(folder / "result.json", make)
    return Result(**{**read, "scores": [Scores(**one) for one in read["scores"]]})


def _last_loss(path: Path, lesson: Lesson) -> float:
    """Mean of the last tenth of the steps, for one video: twins count as much as originals (Eq. 2)."""
    with path.open(newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return fmean(losses[-max(1, len(losses) // 10) :]) / (2 if lesson.method.twins else 1)


def table(results: Mapping[int, Sequence[Result]]) -> str:
    """One row for each variant: mean ± standard deviation over runs."""
    before = [score for result in results[BEFORE] for score in result.scores]
    lines = [
        "| | training loss | noise error in new looks ↓ | joint error, % ↓ | gap closed ↑ | likeness ↑ | "
        "leak ↓ |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for variant, runs in results.items():
        if not runs:
            continue
        means = [{name: _mean(run, name) for name in ("joint_error", "likeness", "leak")} for run in runs]
        closed = gap_closed(
            fmean(score.joint_error for score in before),
            fmean(mean["joint_error"] for mean in means),
            fmean(score.joint_floor for score in before),
        )
        losses = [run.loss for run in runs if run.loss is not None]
        cells = [
            f"#{variant}" if variant else "before",
            spread(losses, 4) if losses else "",
            spread([run.noise_error for run in runs], 4),
            spread([mean["joint_error"] for mean in means], 1),
            f"{closed:.0%}" if variant else "",
            spread([mean["likeness"] for mean in means], 2),
            spread([mean["leak"] for mean in means], 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(run: Result, name: str) -> float:
    return fmean(getattr(score, name) for score in run.scores)

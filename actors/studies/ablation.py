"""`python -m actors ablate`: held-out actions learned under several conditions, measured in new looks."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from flash_modules.backends.diffusers.sd15 import make_detail_decoder
from flash_modules.evaluation.web import points
from flash_modules.flash.decoder_file import read_detail_decoder
from flash_modules.flash.training.method import VARIANTS, MethodConfig
from flash_modules.training.losses import read_losses

from ..base.small_base import DETAILS, FOLDER, image_size
from ..judge.measures import Scores, gap_closed
from ..judge.reader import Reader, load_reader
from ..world.actions import HELD_OUT_ACTIONS
from .learning import Evaluation, Lesson, learn, prepare
from .results import kept, spread

BEFORE = "before learning"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """An arm of the ablation: how an action is learned."""

    method: MethodConfig
    num_clips: int = 8
    joint: bool = False
    """All actions together."""


def _aligned(variant: int, **changes: Any) -> Condition:
    method = VARIANTS[variant]
    return Condition(method=replace(method, alignment=replace(method.alignment, **changes)))


CONDITIONS: Mapping[str, Condition] = MappingProxyType(
    {
        **{f"#{variant}": Condition(method=method) for variant, method in VARIANTS.items()},
        "#5, frame 0 left out": _aligned(5, exclude_first=True),
        "#5, after each module": _aligned(5, after_attention=False),
        "#5, beyond still": _aligned(5, relative_to_still=True),
        "#5, first-frame keys": _aligned(5, first_frame_only=True),
        "#5, whole modules": Condition(method=replace(VARIANTS[5], trainable="motion_module")),
        **{f"#3, tau {tau}": _aligned(3, tau=float(tau)) for tau in (75, 50, 25)},
        "#4, p 1": _aligned(4, p=1.0),
        **{
            f"#{variant}, {num_clips} clips": Condition(method=VARIANTS[variant], num_clips=num_clips)
            for num_clips in (16, 4)
            for variant in (1, 2, 5)
        },
        **{f"#{variant}, jointly": Condition(method=VARIANTS[variant], joint=True) for variant in (1, 2, 5)},
    }
)

TABLES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "variants": ("#1", "#2", "#3", "#4", "#5", "#6"),
        "choices": (
            "#5",
            "#5, frame 0 left out",
            "#5, after each module",
            "#5, beyond still",
            "#5, first-frame keys",
            "#5, whole modules",
        ),
        "alignment": ("#3", "#3, tau 75", "#3, tau 50", "#3, tau 25", "#4", "#4, p 1"),
        "clips": tuple(
            f"#{variant}{of}" for of in (", 16 clips", "", ", 4 clips", ", jointly") for variant in (1, 2, 5)
        ),
    }
)
"""Rows of the paper's Table 2, of choices that it leaves open, of its Tables A2 and A1. #6 is #5 decoded with
details; tau of #3 is 90, and p of #4 is 0.5."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of one run, for one action."""

    loss: float | None
    """Of a video in training, at the end; none before learning."""
    denoising_error: float
    """In looks that nobody has seen."""
    scores: Sequence[Scores]
    """Of videos in those looks."""
    detailed: Sequence[Scores]
    """Of the same latents, decoded with details."""


Results = Mapping[str, Sequence[Result]]
"""By the names of conditions, and BEFORE."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ablate`."""
    parser.description = (
        "Learn actions that the small base has never seen, by the rows of the paper's tables and by choices "
        "that it leaves open, and measure them in looks that the base has never seen. What is done is kept: "
        "the same command goes on."
    )
    parser.set_defaults(run=ablate)
    parser.add_argument("--out", type=Path, default=Path("out/ablation"), help="default %(default)s")
    parser.add_argument(
        "--actions", nargs="+", choices=HELD_OUT_ACTIONS, default=HELD_OUT_ACTIONS, metavar="NAME"
    )
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=[*TABLES], help="in this order (default: all)"
    )
    parser.add_argument(
        "--conditions",
        "--ways",  # their name in commands of before
        nargs="+",
        choices=CONDITIONS,
        default=[*CONDITIONS],
        help="rows of the tables, only these",
        metavar="NAME",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=Lesson.steps, help="for each action (default %(default)s)"
    )
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")
    parser.add_argument("--decoder", type=Path, default=DETAILS, help="its detail decoder")
    parser.add_argument("--hours", type=float, default=12.0, help="begin no run after these (default 12)")


def ablate(args: argparse.Namespace) -> None:
    """Do what is not done yet, as long as time allows; print tables of all that is done, and draw one."""
    end = time.monotonic() + 3600 * args.hours
    judge, size = Judge(load_reader(), args.base, args.decoder), image_size(args.base)
    plan = [*dict.fromkeys(_plan(args))]
    results: dict[str, list[Result]] = {}
    for name, action, seed in tqdm(plan, desc="Ablation", unit="run"):
        if time.monotonic() > end:
            break
        condition = CONDITIONS.get(name, Condition(method=VARIANTS[1]))
        lesson = Lesson(
            actions=tuple(HELD_OUT_ACTIONS) if condition.joint else (action,),
            method=condition.method,
            seed=seed,
            num_clips=condition.num_clips,
            steps=args.steps,
            size=size,
        )
        whose = "all" if condition.joint else _slug(action)
        folder = args.out / f"{whose}-{_slug(name)}-seed{seed}-{args.steps}"
        results.setdefault(name, []).append(judge.result(lesson, action, folder, trained=name != BEFORE))
    args.out.mkdir(parents=True, exist_ok=True)
    for title in args.tables:
        print(f"{table(results, TABLES[title])}\n")
    (args.out / "variants.svg").write_text(figure(results), encoding="utf-8")
    left = len(plan) - sum(map(len, results.values()))
    print(f"{left} of {len(plan)} runs were not begun." if left else f"All {len(plan)} runs are done.")


def _plan(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Names of conditions, actions and seeds: a table after the other, in each of them seed after seed.

    What stands in two tables comes twice.
    """
    for title in args.tables:
        names = (BEFORE, *(name for name in TABLES[title] if name in args.conditions))
        for seed in range(args.seeds):
            for action in args.actions:
                yield from ((name, action, seed) for name in names)


def _slug(name: str) -> str:
    return name.replace("#", "").replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Judge:
    """Runs lessons and measures what came of them."""

    reader: Reader
    base: Path
    decoder: Path
    make_evaluation: Callable[..., Evaluation] = Evaluation

    def result(self, lesson: Lesson, action: str, folder: Path, *, trained: bool) -> Result:
        """The result of a lesson for an action, from its folder if it is there, else made and kept there."""

        def make() -> dict[str, Any]:
            training = prepare(lesson, folder, self.base)
            evaluation = self.make_evaluation(action, self.reader, size=lesson.size)
            if trained:
                learn(training, folder)
            decoder = make_detail_decoder(training.host.base.vae, read_detail_decoder(self.decoder))
            scores, detailed = evaluation.scores(training, lesson.clips[action], decoder)
            made = Result(
                loss=_last_loss(folder / "run" / "loss.csv", lesson) if trained else None,
                denoising_error=evaluation.denoising_error(training),
                scores=scores,
                detailed=detailed,
            )
            return asdict(made)

        settings = {**lesson.settings, "action": action, "trained": trained}
        read = kept(folder / f"result-{_slug(action)}.json", settings, make)
        scores = {name: [Scores(**one) for one in read[name]] for name in ("scores", "detailed")}
        return Result(**{**read, **scores})


def _last_loss(path: Path, lesson: Lesson) -> float:
    """Mean of the last tenth of the steps, for one video: twins count as much as originals (Eq. 2)."""
    losses = read_losses(path)
    return fmean(losses[-max(1, len(losses) // 10) :]) / (2 if lesson.method.twins else 1)


_DIGITS = {
    "joint_error": 1,
    "recognised": 2,
    "flow_cosine": 2,
    "likeness": 2,
    "leak": 2,
    "jump_ratio": 2,
    "consistency": 2,
}


def table(results: Results, names: Sequence[str]) -> str:
    """One row for each condition that was run: mean ± standard deviation over runs."""
    titles = {field.name: field.metadata["title"] for field in fields(Scores)}
    header = ["", "training loss", "loss in new looks ↓", "gap closed ↑", *(titles[name] for name in _DIGITS)]
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    before = _means(results, BEFORE)
    for name in (BEFORE, *names):
        runs = _runs(results, name)
        if not runs:
            continue
        means = _means(results, name)
        losses = [run.loss for run in runs if run.loss is not None]
        closed = gap_closed(
            fmean(before["joint_error"]), fmean(means["joint_error"]), fmean(before["joint_floor"])
        )
        cells = [
            name,
            spread(losses, 4) if losses else "",
            spread([run.denoising_error for run in runs], 4),
            "" if name == BEFORE else f"{closed:.0%}",
            *(spread(means[measure], digits) for measure, digits in _DIGITS.items()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def figure(results: Results) -> str:
    """Joint errors of the variants as an SVG, with those of a still picture and of other truths."""
    found = {
        name: _means(results, name)["joint_error"]
        for name in (BEFORE, *TABLES["variants"])
        if _runs(results, name)
    }
    before = _means(results, BEFORE)
    lines = {
        "still picture": fmean(before["still_error"]),
        "another true video": fmean(before["joint_floor"]),
    }
    return points(found, lines, "joint error, % of the standing height; lower is better")


def _runs(results: Results, name: str) -> Sequence[Result]:
    """The runs of a row; #6 is #5, decoded with details."""
    return results.get("#5" if name == "#6" else name, ())


def _means(results: Results, name: str) -> Mapping[str, Sequence[float]]:
    """Each measure's mean over the pictures of a run, run by run of a row."""
    pictures = [run.detailed if name == "#6" else run.scores for run in _runs(results, name)]
    return {
        measure: [fmean(getattr(score, measure) for score in scores) for scores in pictures]
        for measure in Scores.__dataclass_fields__
    }

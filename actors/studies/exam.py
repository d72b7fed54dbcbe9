"""`python -m actors exam`: whether the step that a run's exam chooses is one that the judge likes, too."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tqdm import tqdm

from flash_modules.backends.diffusers.sd15.train.action import DiffusersHost
from flash_modules.flash.training.action_training import ActionTraining
from flash_modules.flash.training.exam import ExamConfig
from flash_modules.training.exam import Marks, read_marks, verdict
from flash_modules.training.run_folder import RunFolder

from ..base.small_base import FOLDER, image_size
from ..judge.measures import Scores
from ..judge.reader import load_reader
from ..world.actions import HELD_OUT_ACTIONS
from .learning import Evaluation, Lesson, learn, prepare
from .results import kept

SAVE_STEPS = 100
"""As often as the exam is taken, of up to 17 clips with twins."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `exam`."""
    parser.description = (
        "Learn an action that the small base has never seen for longer than it needs, and hold the step that "
        "the exam chooses against the last one: loss and joints of other performances, in looks that nobody "
        "has seen. What is done is kept: the same command goes on."
    )
    parser.set_defaults(run=study)
    parser.add_argument("--out", type=Path, default=Path("out/exam"), help="default %(default)s")
    parser.add_argument("--action", choices=HELD_OUT_ACTIONS, default="chopping wood", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3, help="runs (default %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of each (default %(default)s)")
    parser.add_argument("--clips", type=int, default=8, help="of each, one kept aside from 6 on (default 8)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="default %(default)s")
    parser.add_argument("--base", type=Path, default=FOLDER, help="the small base (default %(default)s)")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A step of a run, and what the judge says of it."""

    marks: Marks
    denoising_error: float
    """In looks that nobody has seen."""
    joint_error: float | None
    """In those looks; of the chosen and the last step alone."""
    recognised: float | None


def study(args: argparse.Namespace) -> None:
    """Do what is not done yet, and print what came of each run, and the chosen steps against the last."""
    runs: list[list[Judged]] = []
    for seed in tqdm(range(args.seeds), desc="Exam", unit="run"):
        lesson = Lesson(
            actions=(args.action,),
            seed=seed,
            num_clips=args.clips,
            steps=args.steps,
            cooldown=0.0,
            size=image_size(args.base),
            exam=ExamConfig(),
            save_steps=SAVE_STEPS,
            keep=args.steps,
        )
        name = f"{args.action.replace(' ', '-')}-{args.clips}-seed{seed}-{args.steps}"
        runs.append(_run(lesson, args.out / name, args.base, args.device))
    for seed, run in enumerate(runs):
        for line in _report(seed, run):
            print(line)
    print(f"\n{_summary(runs)}")


def _run(lesson: Lesson, folder: Path, base: Path, device: torch.device) -> list[Judged]:
    """Every examined step of a run, judged; from its folder if it is there."""

    def make() -> list[dict[str, Any]]:
        training = prepare(lesson, folder, base, device)
        evaluation = Evaluation(lesson.actions[0], load_reader(), size=lesson.size)
        learn(training, folder)
        run = RunFolder(folder, "run", training.settings(1))
        marks = [one for one in read_marks(run.path) if one.step]
        judged = {one.step for one in (chosen(marks), marks[-1])}
        return [asdict(_judge(training, run, evaluation, lesson, one, one.step in judged)) for one in marks]

    read = kept(folder / "result.json", lesson.settings, make)
    return [Judged(**{**one, "marks": Marks(**one["marks"])}) for one in read]


def chosen(marks: Sequence[Marks]) -> Marks:
    """Those of the step that the exam chooses."""
    return min(marks, key=lambda one: one.kept_aside)


def _judge(
    training: ActionTraining[DiffusersHost],
    run: RunFolder,
    evaluation: Evaluation,
    lesson: Lesson,
    marks: Marks,
    videos: bool,
) -> Judged:
    saved = run.read(marks.step).weights
    with torch.no_grad():
        for name, weight in training.host.weights.items():
            weight.copy_(saved[name])
    scores: list[Scores] = []
    if videos:
        scores, _ = evaluation.scores(training, lesson.clips[lesson.actions[0]])
    return Judged(
        marks=marks,
        denoising_error=evaluation.denoising_error(training),
        joint_error=fmean(one.joint_error for one in scores) if scores else None,
        recognised=fmean(one.recognised for one in scores) if scores else None,
    )


def _report(seed: int, run: Sequence[Judged]) -> Iterator[str]:
    """A table of the run's steps, and the words that a user reads."""
    best = chosen([one.marks for one in run]).step
    yield f"\nSeed {seed}\n"
    yield "| step | exam ↓ | gap | loss in new looks ↓ | joint error, % ↓ | recognised ↑ |"
    yield "| --- " * 6 + "|"
    for one in run:
        marks = one.marks
        cells = [
            f"**{marks.step}**" if marks.step == best else f"{marks.step}",
            f"{marks.kept_aside:.4f}",
            f"{marks.gap:.4f}",
            f"{one.denoising_error:.4f}",
            "" if one.joint_error is None else f"{one.joint_error:.1f}",
            "" if one.recognised is None else f"{one.recognised:.2f}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield from ("", *verdict([one.marks for one in run]))


def _summary(runs: Sequence[Sequence[Judged]]) -> str:
    """By how much the chosen step is better than the last, run by run."""
    lines = []
    for run in runs:
        best, last = next(o for o in run if o.marks == chosen([one.marks for one in run])), run[-1]
        assert best.joint_error is not None
        assert last.joint_error is not None
        lines.append(
            f"chosen {best.marks.step}, last {last.marks.step}: loss in new looks "
            f"{best.denoising_error - last.denoising_error:+.4f}, joint error "
            f"{best.joint_error - last.joint_error:+.1f} points"
        )
    return "\n".join(lines)

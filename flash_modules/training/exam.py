"""The exam of a run: now and then the same draws, of what it learns from and of what it never sees.

Not in the paper (FLASH, arXiv:2503.00276), which trains for a fixed number of steps.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..files.json_file import read_json
from .losses import Diverged, LossTable, read_table

SHARE = 0.05
"""The most of a run's time that its exams take."""
FILE = "exam.csv"
COLUMNS = ("kept_aside", "learned_from")
_ROUND = (1, 2, 5, 10, 20, 25, 50, 100, 125, 250, 500)
"""Steps between two exams; each divides 500, the usual number of steps between two checkpoints."""
_NOTHING = 0.005
"""Part of the error; what the last third of the steps brings must be more."""
_COPIES = 0.05
"""Part of the error by which the gap must grow to mean copying."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What came of an exam: mean squared errors, weighted by motion."""

    step: int
    kept_aside: float
    """Of clips, or looks, that the training never sees."""
    learned_from: float

    @property
    def gap(self) -> float:
        """By how much it does better on what it learned from: where this grows, it copies."""
        return self.kept_aside - self.learned_from


class Exam(Protocol):
    """A fixed set of draws; it takes nothing from the training's draws, and changes no weight."""

    @property
    def every(self) -> int:
        """Steps between two."""

    def __call__(self) -> tuple[float, float]:
        """The errors with the weights as they are: of what is kept aside, and of what is learned from."""


def steps_between(cost: float) -> int:
    """Steps between exams of that cost (in steps), so that all of them, one at step 0 too, take `SHARE`."""
    least = 2 * cost / SHARE
    return next((number for number in _ROUND if number >= least), 500 * math.ceil(least / 500))


class ExamRecord:
    """The exams of a sitting, in the run's table."""

    def __init__(self, exam: Exam, folder: Path, step: int, steps: int) -> None:
        """The run is at that step, and goes on to so many."""
        self.exam, self.steps = exam, steps
        self._table = LossTable(folder / FILE, step, COLUMNS)
        self.taken = {marks.step for marks in read_marks(folder)}

    def take_if_due(self, step: int, seconds: float) -> Marks | None:
        """The marks, unless it is not due at this step, or was taken; a run that is too short takes none.

        Raises Diverged if they are no numbers.
        """
        if step % self.exam.every or step in self.taken or self.steps < self.exam.every:
            return None
        kept_aside, learned_from = self.exam()
        if not math.isfinite(kept_aside + learned_from):
            raise Diverged(
                f"The exam at step {step} gave {kept_aside} and {learned_from}, which are no errors: use a "
                "lower learning rate, or bf16 in place of fp16, and start again."
            )
        self.taken.add(step)
        self._table.add(step, seconds, kept_aside, learned_from)
        self._table.flush()
        return Marks(step=step, kept_aside=kept_aside, learned_from=learned_from)

    def close(self) -> None:
        self._table.close()


def read_marks(folder: Path) -> list[Marks]:
    """The marks of a run, exam by exam; none where it takes none. Raises ValueError for another file."""
    return [
        Marks(step=step, kept_aside=kept_aside, learned_from=learned_from)
        for step, (kept_aside, learned_from) in read_table(folder / FILE, COLUMNS)
    ]


def begun_without_exam(settings_file: Path) -> bool:
    """Whether a run was begun without exams, as all were before there were any: so it goes on."""
    return settings_file.is_file() and "exam" not in read_json(settings_file)


def verdict(marks: Sequence[Marks]) -> Iterator[str]:
    """What the exams say, in words: whether the last steps brought anything, and whether it copies."""
    if len(marks) < 3:
        return
    first, last = marks[0], marks[-1]
    early = [one for one in marks if one.step <= first.step + 2 / 3 * (last.step - first.step)]
    best_early, best = (min(some, key=lambda one: one.kept_aside) for some in (early, marks))
    trend = f"{first.kept_aside:.4f} at step {first.step}, {last.kept_aside:.4f} at step {last.step}"
    if best.kept_aside > (1 - _NOTHING) * best_early.kept_aside:
        yield (
            f"Exam (error on moving parts of what it never saw): {trend}; it was as good at step "
            f"{best_early.step} ({best_early.kept_aside:.4f}), and more steps brought nothing."
        )
    else:
        yield f"Exam (error on moving parts of what it never saw): {trend}; more steps may bring more."
    if last.gap - first.gap > _COPIES * first.kept_aside:
        yield (
            f"The error of what it learned from fell by {_fall(first.learned_from, last.learned_from)}, "
            f"that of what it never saw by {_fall(first.kept_aside, last.kept_aside)}: it begins to copy its "
            "clips. More clips, or fewer steps, help."
        )


def _fall(before: float, after: float) -> str:
    return f"{1 - after / before:.0%}"

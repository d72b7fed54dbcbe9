"""Tables of the study of one clip: what is taken off the error, beside a lesson on another action."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from .one_clip_exam import ANOTHER, OTHER, SAME, Errors
from .results import spread


class Examined(Protocol):
    """A lesson that is done."""

    @property
    def action(self) -> str: ...

    @property
    def control(self) -> str: ...

    @property
    def seed(self) -> int: ...

    def exams(self) -> Mapping[int, Errors]: ...


_SETS = (SAME, OTHER, ANOTHER)


def tables(runs: Sequence[Examined], base: Mapping[str, float]) -> str:
    """Errors before and after, by lesson and over all, with spreads over lessons."""
    told = ", ".join(f"{name} {value:g}" for name, value in base.items())
    return "\n\n".join([f"The base: {told}.", _errors(runs), _gains(runs), _answer(runs)])


def saved(run: Examined, name: str, step: int | None = None) -> float:
    """Percent of a set's error that the lesson takes off, after so many steps or at its end."""
    exams = run.exams()
    before, after = exams[0][name], exams[max(exams) if step is None else step][name]
    return 100 * (before - after) / before


def _errors(runs: Sequence[Examined]) -> str:
    titles = ["figures ↓", *(f"{name}: before, after" for name in _SETS)]
    rows = []
    for run in runs:
        exams = run.exams()
        last = exams[max(exams)]
        cells = (f"{exams[0][name]:.4f}, {last[name]:.4f}" for name in _SETS)
        rows.append([f"{run.action}, clip {run.seed}", *cells])
    return _table(titles, rows)


def _gains(runs: Sequence[Examined]) -> str:
    """Over the steps, mean and spread over lessons."""
    steps = sorted({step for run in runs for step in run.exams()} - {0})
    rows = [
        [name, *(spread([saved(run, name, step) for run in runs], 2) for step in steps)] for name in _SETS
    ]
    return _table(["error taken off, %, after", *map(str, steps)], rows)


def _answer(runs: Sequence[Examined]) -> str:
    """By how much more it takes off the motion's and the action's errors than off another action's.

    The last row is of the same clips: the lesson on their action, less one on another.
    """
    by = {(run.action, run.control, run.seed): run for run in runs}
    pairs = [(run, by.get((run.control, run.action, run.seed))) for run in runs]
    more = {
        f"{SAME}, less {ANOTHER}": [saved(run, SAME) - saved(run, ANOTHER) for run in runs],
        f"{OTHER}, less {ANOTHER}": [saved(run, OTHER) - saved(run, ANOTHER) for run in runs],
        f"{OTHER}, less the lesson on the other": [
            saved(run, OTHER) - saved(control, ANOTHER) for run, control in pairs if control
        ],
    }
    rows = [
        [name, spread(of, 2), f"{sum(one > 0 for one in of)} of {len(of)}"] for name, of in more.items() if of
    ]
    return _table(["more is taken off by, points", "", "above 0 in"], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ["---"] * len(titles), *rows])

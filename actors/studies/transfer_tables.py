"""Tables of the study of transfer: what a lesson brings in new looks, beside a lesson on another action."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from statistics import fmean

from ..judge.measures import Scores
from .results import spread
from .transfer_arms import ARMS, BEFORE, DETAILED
from .transfer_runs import Judge, Run

_Runs = Mapping[tuple[str, str, int], Run]
"""By arm, action and seed."""


def tables(runs: Sequence[Run], judge: Judge) -> str:
    """All tables of what is done."""
    by = {(run.arm, run.action, run.seed): run for run in runs}
    arms = [arm for arm in ARMS if any(run.arm == arm for run in runs)]
    parts = [_denoising(by, arms), _gaps(by, arms), _videos(by, arms, judge), _beside(by, arms, judge)]
    return "\n\n".join([*parts, _details(by, judge)])


def _of(by: _Runs, arm: str) -> Iterator[Run]:
    return (run for (name, *_), run in by.items() if name == arm)


def _last(run: Run, clips: str, where: str = "figures") -> float:
    exams = run.exams()
    return exams[max(exams)][clips][where]


def _controlled(by: _Runs, run: Run) -> float | None:
    """What the lesson on the action takes off its error in new looks, beyond a lesson on another action."""
    for control in _of(by, run.arm):
        if control.seed == run.seed and control.control == run.action:
            return _last(control, "control") - _last(run, "new")
    return None


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([_row(titles), _row(["---"] * len(titles)), *map(_row, rows)])


def _cell(values: Sequence[float], digits: int) -> str:
    return spread(values, digits) if values else ""


def _denoising(by: _Runs, arms: Sequence[str]) -> str:
    """Errors at the end, of figures in new looks."""
    titles = ["figures in new looks", "runs", "its lesson ↓", "control lesson", "of the action ↑", "around ↓"]
    rows = []
    for arm in arms:
        runs = [*_of(by, arm)]
        gained = [gain for run in runs if (gain := _controlled(by, run)) is not None]
        own, other, around = (
            [_last(run, *which) for run in runs]
            for which in (("new", "figures"), ("control", "figures"), ("new", "around"))
        )
        cells = (_cell(own, 4), _cell(other, 4), _cell(gained, 4), _cell(around, 4))
        rows.append([arm, str(len(runs)), *cells])
    return _table(titles, rows)


def _gaps(by: _Runs, arms: Sequence[str]) -> str:
    """How far figures in new looks and in the taught one part over the steps: of the same motions."""
    steps = sorted({step for run in by.values() for step in run.exams()})
    pairs = {
        "taught motions": ("taught motion, new look", "taught"),
        "new motions": ("new", "new motion, taught look"),
    }
    rows = []
    for arm in arms:
        runs = [run.exams() for run in _of(by, arm)]
        for title, (new, taught) in pairs.items():
            gaps = [
                [
                    exams[step][new]["figures"] - exams[step][taught]["figures"]
                    for exams in runs
                    if step in exams
                ]
                for step in steps
            ]
            rows.append([arm, title, *(_cell(of, 4) for of in gaps)])
    return _table(["new looks minus the taught one, after", "", *map(str, steps)], rows)


_MEASURES = {"joint_error": 1, "recognised": 2, "likeness": 2, "leak": 2, "flow_cosine": 2}


def _measures(run: Run, judge: Judge, action: str) -> dict[str, float]:
    of = run.scores(judge)[action]
    return {name: _mean(of, name) for name in _MEASURES}


def _videos(by: _Runs, arms: Sequence[str], judge: Judge) -> str:
    """Pictures in new looks that perform the action; joints also after the control lesson."""
    rows = []
    for arm in arms:
        runs = [*_of(by, arm)]
        own = [_measures(run, judge, run.action) for run in runs]
        control = [_measures(run, judge, run.control)["joint_error"] for run in runs]
        cells = [_cell([one[name] for one in own], digits) for name, digits in _MEASURES.items()]
        rows.append([arm, str(len(runs)), cells[0], _cell(control, 1), *cells[1:]])
    any_run = next(iter(by.values()))
    scores = [score for of in any_run.scores(judge).values() for score in of]
    still, floor = (_mean(scores, name) for name in ("still_error", "joint_floor"))
    titles = ["videos in new looks", "runs", "joint error, % ↓", "after the control lesson"]
    titles += ["recognised ↑", "likeness ↑", "leak ↓", "flow cosine ↑"]
    return f"{_table(titles, rows)}\n\nA still picture: {still:.1f} %; another true video: {floor:.1f} %."


def _beside(by: _Runs, arms: Sequence[str], judge: Judge) -> str:
    """Differences to #2 of the same action and seed: mean and deviation, and how often it is better."""
    measures: Mapping[str, tuple[int, int, Callable[[Run], float | None]]] = {
        "figures in new looks ↓": (4, -1, lambda run: _last(run, "new")),
        "of the action ↑": (4, 1, lambda run: _controlled(by, run)),
        "joint error ↓": (1, -1, lambda run: _measures(run, judge, run.action)["joint_error"]),
        "likeness ↑": (2, 1, lambda run: _measures(run, judge, run.action)["likeness"]),
        "leak ↓": (2, -1, lambda run: _measures(run, judge, run.action)["leak"]),
    }
    rows = []
    for arm in arms:
        if arm in ("#2", BEFORE):
            continue
        cells = []
        for digits, better, measure in measures.values():
            pairs = [
                (measure(run), measure(by["#2", run.action, run.seed]))
                for run in _of(by, arm)
                if ("#2", run.action, run.seed) in by
            ]
            differences = [a - b for a, b in pairs if a is not None and b is not None]
            wins = sum(better * difference > 0 for difference in differences)
            cells.append(f"{_cell(differences, digits)} ({wins} of {len(differences)})" if pairs else "")
        rows.append([arm, *cells])
    return _table(["minus #2, same action and seed (better in)", *measures], rows)


_DETAILS = {"joint_error": 1, "likeness": 2, "leak": 2, "jump_ratio": 2, "sharpness": 2}


def _details(by: _Runs, judge: Judge) -> str:
    """The videos of one arm, decoded in each way."""
    found = [run.detailed(judge) for run in _of(by, DETAILED)]
    rows = []
    for way in judge.decoders if found else ():
        cells = [_cell([_mean(of[way], name) for of in found], digits) for name, digits in _DETAILS.items()]
        rows.append([way, *cells])
    titles = [field.metadata["title"] for field in fields(Scores) if field.name in _DETAILS]
    return _table([f"videos of {DETAILED}", *titles], rows)


def _mean(scores: Sequence[Scores], name: str) -> float:
    return fmean(getattr(score, name) for score in scores)

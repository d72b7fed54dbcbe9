"""Tables of the study of transfer: what a lesson brings in new looks, beside a lesson on another action."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from statistics import fmean

from ..judge.measures import Scores, gap_closed
from .results import spread
from .transfer_arms import ARMS, BEFORE, DETAILED
from .transfer_exam import Errors
from .transfer_runs import Judge, Run

_Runs = Mapping[tuple[str, str, int], Run]
"""By arm, action and seed."""


def tables(runs: Sequence[Run], judge: Judge) -> str:
    """All tables of what is done; runs that were broken off count where exams are compared step by step."""
    examined = {(run.arm, run.action, run.seed): run for run in runs if run.exams()}
    by = {key: run for key, run in examined.items() if run.done}
    arms = [arm for arm in ARMS if any(run.arm == arm for run in by.values())]
    parts = [
        _denoising(by, arms),
        _course(by, arms),
        _gaps(by, arms),
        _step_by_step(examined, arms),
        _videos(by, arms, judge),
        _beside(by, arms, judge),
        _details(by, judge),
        _by_action(by, judge),
    ]
    return "\n\n".join(parts)


def lesson_tables(runs: Sequence[Run]) -> str:
    """Those of errors alone, of what is done."""
    by = {(run.arm, run.action, run.seed): run for run in runs if run.done}
    arms = [arm for arm in runs[0].arms if any(run.arm == arm for run in by.values())]
    parts = [_denoising(by, arms), _step_by_step(by, arms), _gained(by, arms)]
    return "\n\n".join([*parts, f"{len(by)} of {len(runs)} runs are done."])


def _gained(by: _Runs, arms: Sequence[str]) -> str:
    """What lessons take off the errors of each set, beyond what was there before them."""
    sets = ("taught", "taught motion, new look", "new motion, taught look", "new", "control")
    rows = []
    for arm in (arm for arm in arms if arm != BEFORE):
        pairs = [
            (run, by[BEFORE, run.action, run.seed])
            for run in _of(by, arm)
            if (BEFORE, run.action, run.seed) in by
        ]
        gained = ([_last(before, name) - _last(run, name) for run, before in pairs] for name in sets)
        rows.append([arm, *(_cell(of, 4) for of in gained)])
    return _table(["figures, less than before learning by ↑", *sets], rows)


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


def _course(by: _Runs, arms: Sequence[str]) -> str:
    """Errors of figures over the steps: in new looks, and of the clips that are learned from."""
    steps = sorted({step for run in by.values() for step in run.exams()})
    rows = []
    for arm in (arm for arm in arms if arm != BEFORE):
        runs = [run.exams() for run in _of(by, arm)]
        for title, name in (("new looks", "new"), ("the clips", "taught")):
            errors = (fmean(exams[step][name]["figures"] for exams in runs) for step in steps)
            rows.append([arm, title, *(f"{error:.4f}" for error in errors)])
    return _table(["figures ↓, after", "of", *map(str, steps)], rows)


_PAIRS = {
    "taught motions": ("taught motion, new look", "taught"),
    "new motions": ("new", "new motion, taught look"),
}


def _gap(exam: Errors, pair: str) -> float:
    """How much worse figures are denoised in new looks than in the taught one: of the same motions."""
    new, taught = _PAIRS[pair]
    return exam[new]["figures"] - exam[taught]["figures"]


def _gaps(by: _Runs, arms: Sequence[str]) -> str:
    """How far new looks and the taught one part over the steps."""
    steps = sorted({step for run in by.values() for step in run.exams()} - {0})
    rows = []
    for arm in arms:
        runs = [run.exams() for run in _of(by, arm) if run.arm != BEFORE]
        for pair in _PAIRS if runs else ():
            grown = ([_gap(exams[step], pair) - _gap(exams[0], pair) for exams in runs] for step in steps)
            rows.append([arm, pair, *(_cell(of, 4) for of in grown)])
    return _table(["new looks part from the taught one by ↓", "", *map(str, steps)], rows)


def _step_by_step(by: _Runs, arms: Sequence[str]) -> str:
    """Differences to #2 of the same action and seed, as far as both came."""
    steps = sorted({step for run in by.values() for step in run.exams()} - {0})
    rows = []
    for arm in (arm for arm in arms if arm not in ("#2", BEFORE)):
        pairs = [
            (run.exams(), by["#2", run.action, run.seed].exams())
            for run in _of(by, arm)
            if ("#2", run.action, run.seed) in by
        ]
        cells = []
        for step in steps:
            both = [(one[step]["new"], two[step]["new"]) for one, two in pairs if step in one and step in two]
            cells.append(_compared([one["figures"] - two["figures"] for one, two in both], 4, -1))
        rows.append([arm, *cells])
    return _table(["figures in new looks ↓, minus #2 (better in), after", *map(str, steps)], rows)


def _compared(differences: Sequence[float], digits: int, better: int) -> str:
    """Mean and deviation, and how many go the better way."""
    wins = sum(better * difference > 0 for difference in differences)
    return f"{_cell(differences, digits)} ({wins} of {len(differences)})" if differences else ""


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
            cells.append(_compared(differences, digits, better))
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


def _by_action(by: _Runs, judge: Judge) -> str:
    """How much of the way to the floor the arm goes, run by run, decoded in each way."""
    ways = list(judge.decoders)
    rows = []
    for run in (run for run in _of(by, DETAILED) if (BEFORE, run.action, run.seed) in by):
        before, found = by[BEFORE, run.action, run.seed].scores(judge)[run.action], run.detailed(judge)
        start, floor = _mean(before, "joint_error"), _mean(before, "joint_floor")
        ends = [_mean(found[way], "joint_error") for way in ways]
        went = [f"{end:.1f} ({gap_closed(start, end, floor):.0%})" for end in ends]
        still = _mean(before, "still_error")
        rows.append([run.action, f"{start:.1f}", *went, f"{still:.1f}", f"{floor:.1f}"])
    return _table(
        [f"joint error, %, of {DETAILED} (way to the floor)", "before", *ways, "still", "floor"], rows
    )


def _mean(scores: Sequence[Scores], name: str) -> float:
    return fmean(getattr(score, name) for score in scores)

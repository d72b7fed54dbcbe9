"""Steps of a benchmark's rows, and what they take: by the clock, and of processors."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a step took."""

    seconds: float
    cpu_seconds: float
    """Of processors, all threads together: what other programs take does not count."""

    def __truediv__(self, other: float) -> "Spent":
        return Spent(seconds=self.seconds / other, cpu_seconds=self.cpu_seconds / other)


Step = Callable[[], Spent]
"""Runs one step of a row."""
Rows = Mapping[str, Callable[[], Step]]
"""Builders of the rows, by name."""


class Stopwatch:
    """Runs from when it is made; work on a GPU is waited for."""

    def __init__(self) -> None:
        self._start = self._now()

    def stop(self) -> Spent:
        seconds, cpu_seconds = (now - start for now, start in zip(self._now(), self._start, strict=True))
        return Spent(seconds=seconds, cpu_seconds=cpu_seconds)

    def _now(self) -> tuple[float, float]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def timed(call: Callable[[], object]) -> Step:
    """The call as a step."""

    def step() -> Spent:
        watch = Stopwatch()
        call()
        return watch.stop()

    return step


def time_rows(rows: Rows, rounds: int) -> dict[str, list[Spent]]:
    """What each round took. The rows take turns, so that a noisy machine is noisy for all of them."""
    steps = {name: build() for name, build in rows.items()}
    spent: dict[str, list[Spent]] = {name: [] for name in steps}
    for _ in range(1 + rounds):
        for name, step in steps.items():
            spent[name].append(step())
    return {name: rounds[1:] for name, rounds in spent.items()}  # 0 is a warm-up


def middle(rounds: Sequence[Spent]) -> Spent:
    """The median of each number."""
    return Spent(
        seconds=statistics.median(spent.seconds for spent in rounds),
        cpu_seconds=statistics.median(spent.cpu_seconds for spent in rounds),
    )


def ratio(rounds: Sequence[Spent], others: Sequence[Spent]) -> Spent:
    """The median of the ratios to another row in the same round: what slows a whole round falls out."""
    pairs = list(zip(rounds, others, strict=True))
    return Spent(
        seconds=statistics.median(spent.seconds / other.seconds for spent, other in pairs),
        cpu_seconds=statistics.median(spent.cpu_seconds / other.cpu_seconds for spent, other in pairs),
    )

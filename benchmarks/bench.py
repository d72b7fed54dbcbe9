"""Time and memory of one step of generation: `make bench`, or `make bench ARGS=--small` for a quick try.

Prints a Markdown table. All rows of a host are timed in one process, taking turns; the memory of each row is
taken in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .measure import ROOT, add_options
from .steps import Spent, middle, ratio

COMFYUI_PYTHON = os.environ.get("COMFYUI_PYTHON") or sys.executable
OWN_PYTHON_LIMIT_MS = 10
"""1 % of a step that takes a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of one step of generation.")
    options = add_options(parser).parse_args()
    hosts = [(sys.executable, "rows_diffusers"), (COMFYUI_PYTHON, "rows_comfyui")]
    notes = []
    print("| host | U-Net | seconds per step | x bare | of processors | x bare | peak memory | x bare |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for python, script in hosts:
        timed = run(python, script)
        if "left_out" in timed:
            notes.append(f"ComfyUI was left out: {timed['left_out']}.")
        else:
            print_rows(python, script, timed)
            notes.append(f"{timed['host']}: {timed['load']}.")
            notes += comparisons(timed["host"], rounds_of(timed))
    notes.append(
        f"Seconds: median of {options.rounds} rounds in which the rows of a host take turns, after one to "
        "warm up; ratios: the median of the rounds' own. Seconds of processors count no other program. Peak "
        "memory: of the whole process on a CPU, of torch's allocations during a step on CUDA. "
        "diffusers' UNetMotionModel norms its motion modules over all frames together; ours per frame."
    )
    if "left_out" not in timed:
        notes += list(comfyui_notes())
    print("", *(f"- {note}" for note in notes), sep="\n")


def run(python: str, script: str, *more: str) -> dict[str, Any]:
    """The result of one process: the last line that it prints."""
    command = [python, "-m", f"benchmarks.{script}", *sys.argv[1:], *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stderr}\n{script} {' '.join(more)} failed; its messages are above.")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def rounds_of(timed: Mapping[str, Any]) -> dict[str, list[Spent]]:
    """What each round of each row took, from a process's result."""
    return {row: [Spent(**spent) for spent in each] for row, each in timed["rounds"].items()}


def print_rows(python: str, script: str, timed: Mapping[str, Any]) -> None:
    rounds = rounds_of(timed)
    bare, *_ = rounds
    bare_peak = 0.0
    for row, each in rounds.items():
        peak = run(python, script, "--memory", row)["peak"]
        bare_peak = bare_peak or peak
        spent, times = middle(each), ratio(each, rounds[bare])
        print(
            f"| {timed['host']} | {row} | {spent.seconds:.3f} | {times.seconds:.2f} "
            f"| {spent.cpu_seconds:.3f} | {times.cpu_seconds:.2f} "
            f"| {peak / 2**30:.2f} GiB | {peak / bare_peak:.2f} |",
            flush=True,
        )


def comparisons(host: str, rounds: Mapping[str, Sequence[Spent]]) -> Iterator[str]:
    """Our motion modules, the row behind `bare`, against those of others."""
    _, ours, *more = rounds
    for other in (row for row in more if not row.startswith("ours")):
        times = ratio(rounds[ours], rounds[other])
        yield (
            f"{host}, {ours} / {other}: {times.seconds:.3f} by the clock, {times.cpu_seconds:.3f} of "
            f"processors (median of {len(rounds[ours])} pairs)."
        )


def comfyui_notes() -> Iterator[str]:
    found = run(COMFYUI_PYTHON, "rows_comfyui", "--more")
    yield (
        f"Our wrappers and patches in ComfyUI (Apply Action, First Frame) take {found['hooks']:.1f} ms of "
        f"Python per step; the aim is below {OWN_PYTHON_LIMIT_MS} ms, 1 % of a second. With the lines and "
        f"operators of the motion modules it is {found['whole_pack']:.1f} ms. By cProfile, einops left out."
    )
    (first, before), (last, after) = found["memory"].items()
    yield (
        f"Memory of one long run in ComfyUI, with a small model: {before / 2**20:.1f} MiB after step "
        f"{first}, {after / 2**20:.1f} MiB after step {last}."
    )


if __name__ == "__main__":
    main()

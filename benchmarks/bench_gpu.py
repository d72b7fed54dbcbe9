"""Everything that a GPU must show, in one command with a time limit: `make bench-gpu`.

Each part is a process of its own with a limit of its own, the most important first. Results are written as
they come: rows to `results.jsonl`, tables to `speed.md` in the folder. A part that fails or takes too long
does not stop the others. Run again with the same folder, it goes on with what is not measured yet.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from .carried import unpack
from .gpu_page import page
from .gpu_run import PARTS, Part, Record, read_records

ROOT = Path(__file__).resolve().parents[1]
LEAST = 15
"""Seconds: with less left nothing is begun."""
MESSAGE = 2000
"""Letters of a failed part's output that are kept, from its end."""


def main(arguments: Sequence[str] | None = None) -> None:
    end = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole command")
    parser.add_argument("--out", type=Path, default=Path("out/bench-gpu"), help="folder of the results")
    parser.add_argument("--page", type=Path, help="where to write the tables too, as docs/speed.md")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="these alone")
    parser.add_argument("--dry", action="store_true", help="try everything with small shapes")
    parser.add_argument("--peer", type=Path, help="a checkout of AnimateDiff-Evolved, for a row in ComfyUI")
    parser.add_argument("--wheels", type=Path, help="what is missing here, from `benchmarks.carried`")
    parser.add_argument("--plan", action="store_true", help="tell what would run, and for how long at most")
    options = parser.parse_args(arguments)
    end += 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    results = Results(options.out, f"{parser.prog} --minutes {options.minutes:g}{' --dry' * options.dry}")
    chosen = [part for part in PARTS if not options.parts or part.name in options.parts]

    if options.plan:
        print("\n".join(plan(chosen, results)))
        return
    if options.wheels:
        use_wheels(options.wheels.resolve(), options.out.resolve() / "packages")
    more = ["--dry"] * options.dry + (["--peer", str(options.peer.resolve())] if options.peer else [])
    run_parts(chosen, results, lambda part, limit: [*process(part, results.path, limit), *more], end)
    if options.page:
        shutil.copy(results.write_page(), options.page)
    print(results.write_page().read_text())


def plan(parts: Iterable[Part], results: "Results") -> Iterator[str]:
    """The parts in their order, each with its limit, or what was measured before."""
    for part in parts:
        yield f"{part.name}: {'measured before' if results.is_done(part) else f'at most {part.limit:.0f} s'}"


def use_wheels(folder: Path, target: Path) -> None:
    """Unpack what is missing here, for the processes of all parts."""
    unpack(folder, target)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(target), *([before] if before else [])])


def process(part: Part, path: Path, seconds: float) -> list[str]:
    """The command that adds a part's rows to a file, in so many seconds."""
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part.name, "--out", str(path.resolve())]
    return [*command, "--seconds", f"{seconds:.0f}"]


class Results:
    """The file of all rows, and the page that is made of it."""

    def __init__(self, folder: Path, command: str) -> None:
        self.path, self.folder, self.command = folder / "results.jsonl", folder, command

    def records(self) -> list[Record]:
        return read_records(self.path)

    def add(self, part: Part, **record: object) -> None:
        with self.path.open("a") as file:  # a line of its own, after half a line too
            print("\n" + json.dumps({"part": part.name, **record}), file=file)

    def is_done(self, part: Part) -> bool:
        return any(r["part"] == part.name and r.get("ended") == "done" for r in self.records())

    def write_page(self) -> Path:
        path = self.folder / "speed.md"
        path.write_text(page(self.records()))
        return path


def run_parts(
    parts: Iterable[Part], results: Results, command: Callable[[Part, float], list[str]], end: float
) -> None:
    """Run what is not done yet, each part until its limit or the end (of `time.monotonic`)."""
    for part in parts:
        if results.is_done(part):
            print(f"{part.name}: measured before", flush=True)
            continue
        left = end - time.monotonic()
        if left < LEAST:
            print(f"{part.name}: no time left", flush=True)
            continue
        start, limit = time.monotonic(), min(part.limit, left)
        ended, message = run_part(command(part, limit), limit)
        seconds = time.monotonic() - start
        results.add(part, ended=ended, took=round(seconds, 1), message=message, command=results.command)
        results.write_page()
        print(f"{part.name}: {ended} after {seconds:.0f} s {message}".rstrip(), flush=True)


def run_part(command: list[str], limit: float) -> tuple[str, str]:
    """How a process ended, and the end of what it said unless it is done.

    Past its limit it is killed with all that it started.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            ended = "failed" if process.wait(limit) else "done"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ended = f"stopped at its limit of {limit:.0f} s"
        said.seek(0)
        return ended, "" if ended == "done" else said.read()[-MESSAGE:]


if __name__ == "__main__":
    main()

"""`make fuzz`: read thousands of spoiled files of every kind that users bring, each in a process of its own.

Prints what became of them: read, or refused in a sentence; and what should never be: raw errors and crashes,
more than 20 seconds, more than a gigabyte beyond what a good file takes, or something in the file that runs.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="critical")
if not __package__:  # a script of its own, and no part of pytest
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import conftest  # noqa: F401

from flash_pack.tests.fuzz.kinds import Kind, make_kinds, spoil
from flash_pack.tests.fuzz.transfer_kinds import transfer_kinds

SECONDS = 20.0
GIB = 2**30
OUTCOMES = ("ok", "refused", "raw", "hang", "memory", "run")
BAD = OUTCOMES[2:]

_RUNS = (
    "os.system",
    "subprocess.Popen",
    "os.posix_spawn",
    "os.exec",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
"""What Python tells of when something is run, or the network asked."""


@dataclass(frozen=True)
class Outcome:
    name: str
    words: str
    rss: int
    """Bytes, the most."""
    seconds: float


def try_file(read: Callable[[Path], object], path: Path, most_rss: int, trap: Path) -> Outcome:
    """Read a file in a process of its own, which may take so much memory."""
    said_file = path.parent / ".said"
    start = time.monotonic()
    child = os.fork()
    if not child:
        _read_and_exit(read, path, said_file)
    status, usage = _wait(child, start)
    seconds, rss = time.monotonic() - start, usage.ru_maxrss * 1024
    said = said_file.read_text(errors="replace") if said_file.exists() else ""
    if trap.exists():
        trap.unlink()
        name = "run"
    elif status is None:
        name = "hang"
    elif rss > most_rss:
        name = "memory"
    elif os.WIFSIGNALED(status):
        name, said = "raw", f"signal {os.WTERMSIG(status)} {said}"
    else:
        name = {0: "ok", 3: "refused", 5: "run"}.get(os.WEXITSTATUS(status), "raw")
    return Outcome(name, said.strip(), rss, seconds)


def _wait(child: int, start: float) -> tuple[int | None, resource.struct_rusage]:
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        if time.monotonic() - start > SECONDS:
            os.kill(child, signal.SIGKILL)
            return None, os.wait4(child, 0)[2]
        time.sleep(0.002)


def _read_and_exit(read: Callable[[Path], object], path: Path, said_file: Path) -> None:
    """As the command line does: a sentence for what the user can mend, else what Python says."""
    ran: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in _RUNS:
            ran.append(f"{event} {arguments!r}"[:300])

    code = 4
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        resource.setrlimit(resource.RLIMIT_AS, (64 * GIB, 64 * GIB))
        sys.addaudithook(watch)
        read(path)
        code = 0
    except BaseException as error:  # noqa: BLE001  whatever comes is what this looks for
        refused = isinstance(error, ValueError | OSError) and not isinstance(error, UnicodeError)
        code = 3 if refused and len(str(error)) < 4000 else 4
        said_file.write_text(str(error) if code == 3 else traceback.format_exc(), errors="replace")
    if ran:
        code = 5
        said_file.write_text("; ".join(ran), errors="replace")
    os._exit(code)


def measure(kind: Kind, folder: Path, trap: Path) -> int:
    """Bytes that a good file may take at most; it must be read."""
    place = folder / "good"
    place.mkdir(parents=True)
    copy = place / kind.good.name
    (shutil.copytree if kind.good.is_dir() else shutil.copy)(kind.good, copy)
    outcome = try_file(kind.read, copy, 10**15, trap)
    assert outcome.name == "ok", f"a good file of {kind.name} is {outcome.name}: {outcome.words}"
    return outcome.rss + GIB


def counts(kinds: Sequence[Kind], total: int, least: int) -> dict[str, int]:
    """How many files of each kind: all attacks, and so many others."""
    shares = sum(kind.share for kind in kinds)
    return {kind.name: max(len(kind.attacks) + least, round(total * kind.share / shares)) for kind in kinds}


def fuzz(
    kinds: Sequence[Kind],
    folder: Path,
    total: int,
    seed: int,
    on_file: Callable[[Kind, int, Outcome, str], object],
    least: int = 20,
) -> dict[str, Counter[str]]:
    """Try so many files, spread over the kinds; what became of them, by kind."""
    table: dict[str, Counter[str]] = {}
    trap = folder / "good" / "trap"
    for kind, count in zip(kinds, counts(kinds, total, least).values(), strict=True):
        table[kind.name] = Counter()
        most_rss = measure(kind, folder / "measure" / kind.name.replace("/", " "), trap)
        for number in range(count):
            draw = random.Random(f"{seed} {kind.name} {number}")
            place = folder / "spoiled" / str(number)
            path, what = spoil(kind, number, draw, place)
            outcome = try_file(kind.read, path, most_rss, trap)
            table[kind.name][outcome.name] += 1
            on_file(kind, number, outcome, what)
            shutil.rmtree(place)
    return table


def show(table: dict[str, Counter[str]]) -> Iterator[str]:
    """The table, in lines."""
    total: Counter[str] = sum(table.values(), Counter())
    yield f"{'kind':24}" + "".join(f"{name:>9}" for name in ("files", *OUTCOMES))
    for name, counted in [*table.items(), ("all", total)]:
        yield f"{name:24}{sum(counted.values()):9}" + "".join(f"{counted[one]:9}" for one in OUTCOMES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2400, help="default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--kind", help="only kinds with this in their names")
    parser.add_argument("--keep", type=Path, help="a folder for what was said of each file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "good").mkdir()
        kinds = [*make_kinds(folder / "good"), *transfer_kinds(folder / "good-transfer")]
        chosen = [kind for kind in kinds if not args.kind or args.kind in kind.name]
        log = args.keep.open("w") if args.keep else None

        def on_file(kind: Kind, number: int, outcome: Outcome, what: str) -> None:
            words = (
                outcome.words
                if len(outcome.words) < 3000
                else f"{outcome.words[:1000]} ... {outcome.words[-1000:]}"
            )
            line = f"{kind.name} {number} {what}: {outcome.name} {outcome.seconds:.1f} s {words}"
            if outcome.name in BAD:
                print(line, flush=True)
            if log:
                print(line, file=log, flush=True)

        table = fuzz(chosen, folder, args.files, args.seed, on_file)
    print(*show(table), sep="\n")
    return 1 if any(counted[name] for counted in table.values() for name in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Trials of Learn Action that take minutes: `make trials`. Each is in a real server, on a random SD 1.5.

`FLASH_TRIALS=20` does twenty of each in place of ten.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from flash_pack.tests.comfy.server.conftest import Server, running_server
from flash_pack.tests.comfy.server.test_learning import lesson as lesson

TRIALS = int(os.environ.get("FLASH_TRIALS", "10"))
STEPS = 6
"""Of a run; when one is done in spite of all, the trials go on with another."""
PATIENCE = 3600.0
"""Seconds; on a busy machine all of it takes long."""
Lesson = Callable[[str, int], dict[str, Any]]


@pytest.fixture
def short(lesson: Lesson) -> Lesson:
    """Lessons that save each step."""

    def short(run_name: str, steps: int) -> dict[str, Any]:
        prompt = lesson(run_name, steps)
        for node in prompt.values():
            if node["class_type"] == "FLASH_TrainingOptions":
                node["inputs"].update(save_steps=1, keep=2, sample_every=4)
        return prompt

    return short


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Writes figures where they are seen, also of what passes."""
    plugins = request.config.pluginmanager
    capture, reporter = plugins.getplugin("capturemanager"), plugins.getplugin("terminalreporter")

    def tell(text: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(text)

    return tell


def finished(server: Server, prompt: dict[str, Any]) -> dict[str, Any]:
    return server.finished(server.queue(prompt), PATIENCE)


def newest(run: Path) -> int:
    steps = [int(path.name.split("-")[1]) for path in run.glob("checkpoint-*") if path.name[11:].isdigit()]
    return max(steps, default=0)


def losses(run: Path) -> list[tuple[str, str]]:
    rows = [line.split(",") for line in (run / "loss.csv").read_text().splitlines()]
    return [(step, loss) for step, _, loss in rows]


def assert_equal(base: Path, name: str, other: str) -> None:
    """Bit for bit: weights, the optimizer's state, losses, and the action in its file."""
    runs = [base / "models" / "flash_runs" / one for one in (name, other)]
    files = [f"checkpoint-{STEPS}/{part}.safetensors" for part in ("trainable", "optimizer")]
    pairs = [(runs[0] / file, runs[1] / file) for file in files]
    pairs.append(tuple(base / "models" / "flash_actions" / f"{one}.safetensors" for one in (name, other)))
    for path, other_path in pairs:
        found, expected = load_file(path), load_file(other_path)
        assert found.keys() == expected.keys()
        assert [key for key in found if not found[key].equal(expected[key])] == []
    assert losses(runs[0]) == losses(runs[1])


@pytest.fixture(scope="module")
def whole(base: Path) -> dict[str, float]:
    """Filled when the run `whole` is done, without a break: its time before the first step, and of one."""
    return {}


def learn_whole(server: Server, short: Lesson, whole: dict[str, float]) -> None:
    if whole:
        return
    start = time.monotonic()
    history = finished(server, short("whole", STEPS))
    assert history["status"]["status_str"] == "success"
    rows = (server.base / "models/flash_runs/whole/loss.csv").read_text().splitlines()
    first, last = (float(row.split(",")[1]) for row in (rows[1], rows[-1]))
    whole["step"] = (last - first) / (STEPS - 1)
    whole["before"] = time.monotonic() - start - last


def beginning(server: Server, short: Lesson) -> float:
    """Seconds until a server that was just started has done the first step."""
    with running_server(server.base) as victim:
        start = time.monotonic()
        victim.queue(short("begun", STEPS))
        victim.wait_for(lambda: newest(server.base / "models/flash_runs/begun"), "a step", PATIENCE)
        victim.process.kill()
        return time.monotonic() - start


BreakOff = Callable[[str, float], bool]
"""``break_off(run_name, seconds) -> whether it was still running after so many seconds``."""


def broken_off(base: Path, kind: str, whole: dict[str, float], break_off: BreakOff) -> list[tuple]:
    """Names of runs, moments (while it begins, or within two steps) and the steps that were kept then."""
    draws, seen, number = random.Random(5), [], 1
    while len(seen) < TRIALS:
        name = f"{kind} {number}"
        moment = draws.uniform(0, whole["before"] + 2 * whole["step"])
        if break_off(name, moment):
            seen.append((name, round(moment, 1), newest(base / "models/flash_runs" / name)))
        else:
            number += 1
    return seen


def check_runs(server: Server, short: Lesson, seen: list[tuple]) -> None:
    """All of them go on to their end, which is that of the whole run."""
    for name in dict.fromkeys(name for name, _, _ in seen):
        assert finished(server, short(name, STEPS))["status"]["status_str"] == "success"
        assert_equal(server.base, name, "whole")
        assert not list((server.base / "models/flash_runs" / name).glob(".flash-*"))
    assert len({step for _, _, step in seen}) > 1


def test_cancel_at_random_moments_costs_no_bit(server, short, whole, tell):
    learn_whole(server, short, whole)

    def cancel(name: str, moment: float) -> bool:
        queued = server.queue(short(name, STEPS))
        time.sleep(moment)
        server.post("/interrupt", {})
        return "execution_interrupted" in str(server.finished(queued, PATIENCE)["status"]["messages"])

    seen = broken_off(server.base, "cancelled", whole, cancel)
    tell(f"\nCancelled (run, after s, step that is kept): {seen}")
    check_runs(server, short, seen)


def test_kill_9_at_random_moments_costs_no_bit(server, short, whole, tell):
    learn_whole(server, short, whole)

    def kill(name: str, moment: float) -> bool:
        with running_server(server.base) as victim:
            queued = victim.queue(short(name, STEPS))
            time.sleep(moment)
            runs = not victim.get(f"/history/{queued}")
            victim.process.kill()
        return runs

    seen = broken_off(server.base, "killed", whole | {"before": beginning(server, short)}, kill)
    tell(f"\nKilled (run, after s, step that is kept): {seen}")
    check_runs(server, short, seen)


def test_memory_is_flat_over_many_trainings(server, short, tell):
    """Resident memory of the server after each; the first ones load what is loaded once."""
    resident = []
    for number in range(TRIALS):
        history = finished(server, short(f"standing {number}", 1))
        assert history["status"]["status_str"] == "success"
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        resident.append(int(line.split()[1]) // 1024)
    tell(f"\nResident after each training, MiB: {resident}")
    assert max(resident[TRIALS // 2 :]) <= 1.05 * max(resident[: TRIALS // 2])

"""Two processes under `accelerate launch`: they go on, learn what one learns, and stop together."""

import csv
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.tests.backends.command_line import cheap_counting

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = (
    "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no -m flash_modules"
)
"""--multi_gpu also starts processes for the CPU; with --cpu accelerate leaves all but one to MPI."""
BEGUN = 2
"""Steps of the process that begins."""
PATIENCE = 300.0
"""Seconds; most of a launch is imports, slow on a busy computer."""
SAY_PATIENCE = """
import torch
from flash_modules.cli.processes import AcceleratedProcesses
AcceleratedProcesses(torch.device("cpu"))
group = torch.distributed.distributed_c10d._get_default_group()
print(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())
"""


def write_clip(path: Path, angle: int) -> None:
    frames = [Image.linear_gradient("L").rotate(angle + 15 * i).resize((40, 32)) for i in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


class Launch:
    """A run of two processes, whose output goes to a file."""

    def __init__(self, words: Sequence[str], log: Path, command: str = "train") -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", *LAUNCH.split(), command, *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not happened() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert happened(), self.log.read_text()

    def finish(self) -> None:
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()  # and not kill: the launcher passes it on to its processes
            self.process.wait(PATIENCE)


class Runs:
    """A run that one process begins and two go on with until they are `stopped`, and the same by one alone.

    Launches are few, for they take long: a checkpoint of two processes is shown to be that of one.
    """

    def __init__(self, folder: Path, training_files: Path) -> None:
        self.folder = folder
        (folder / "clips").mkdir()
        write_clip(folder / "clips" / "a.gif", 0)
        write_clip(folder / "clips" / "b.gif", 90)
        self.words = [
            *("--base", str(training_files / "base")),
            *("--motion", str(training_files / "motion.safetensors")),
            *("--clips", str(folder / "clips"), "--runs", str(folder)),
            *("--frames", "3", "--size", "16", "--pool", "2", "--lr", "1e-3", "--device", "cpu"),
        ]
        self.train_one("two", BEGUN)
        self.stopped = self.go_on_with_two()
        self.train_one("one", self.stopped)

    def train_one(self, name: str, steps: int) -> None:
        words = ["--out", name, "--accumulation", "2", "--steps", str(steps)]
        with cheap_counting():
            assert cli.main(["train", *self.words, *words]) == 0

    def go_on_with_two(self) -> int:
        two = self.folder / "two"
        begun = (two / "loss.csv").stat().st_mtime_ns
        with Launch([*self.words, "--out", "two", "--steps", "10000"], self.folder / "two.log") as launch:
            launch.wait_until(lambda: (two / "loss.csv").stat().st_mtime_ns != begun)
            (two / "stop").touch()
            launch.finish()
        return max(int(path.name.removeprefix("checkpoint-")) for path in two.glob("checkpoint-*"))

    def action(self, name: str) -> dict[str, Tensor]:
        tensors, _ = read_tensors(self.folder / name / f"{name}.safetensors")
        return tensors

    def checkpoint(self, name: str, part: str) -> dict[str, Tensor]:
        tensors, _ = read_tensors(self.folder / name / f"checkpoint-{self.stopped}" / f"{part}.safetensors")
        return tensors

    def losses(self, name: str, table: str = "loss.csv") -> list[tuple[str, str]]:
        """(step, loss), as written."""
        with (self.folder / name / table).open(newline="") as file:
            return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def runs(training_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), training_files)


def test_two_processes_go_on_from_a_checkpoint(runs: Runs) -> None:
    assert (runs.folder / "two.log").read_text().count(f"Going on from step {BEGUN}.") == 1


def test_a_stop_file_ends_both_processes_with_a_checkpoint(runs: Runs) -> None:
    assert BEGUN < runs.stopped < 100
    assert "the same command goes on from here" in (runs.folder / "two.log").read_text()
    assert {path.name for path in (runs.folder / "two").glob("checkpoint-*")} == {
        f"checkpoint-{BEGUN}",
        f"checkpoint-{runs.stopped}",
    }


def test_two_processes_learn_what_one_learns_with_accumulation_2(runs: Runs) -> None:
    """Bit for bit: halves are exact, and two numbers add up to the same in either order."""
    one, two = runs.action("one"), runs.action("two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(two[name].any() for name in two if name.endswith(".diff"))


@pytest.mark.parametrize("part", ["trainable", "optimizer"])
def test_a_checkpoint_of_two_processes_is_that_of_one(runs: Runs, part: str) -> None:
    one, two = runs.checkpoint("one", part), runs.checkpoint("two", part)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_each_process_writes_the_mean_loss_of_both(runs: Runs) -> None:
    losses = runs.losses("one")
    assert [int(step) for step, _ in losses] == list(range(1, runs.stopped + 1))
    assert runs.losses("two") == losses
    assert runs.losses("two", "loss-1.csv") == losses[BEGUN:]


def test_one_process_waits_for_hours_of_another_ones_work() -> None:
    """Encoding many clips, for example; by default a wait of ten minutes breaks a run off."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    done = subprocess.run(
        [sys.executable, "-c", SAY_PATIENCE],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in told.items()}},
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert float(done.stdout) >= 12 * 3600

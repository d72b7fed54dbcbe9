"""What is written lies on the disk, whole, whatever happens: order of flushing, kills, power cuts, links."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flash_pack.flash_modules.files import whole as whole_module
from flash_pack.flash_modules.files.tensor_file import write_tensors
from flash_pack.flash_modules.files.video_files import write_video
from flash_pack.flash_modules.files.whole import NotWritten, discard, whole, write_text
from flash_pack.flash_modules.training.loop import LoopConfig, train
from flash_pack.flash_modules.training.run_folder import Checkpoint, LossTable, Progress, RunFolder
from flash_pack.tests.disks import make_image, mounted_image, small_disk

KILLS = int(os.environ.get("FLASH_KILLS", "6"))
POWER_CUTS = int(os.environ.get("FLASH_POWER_CUTS", "2"))
"""50 and 20 were tried; so many take minutes."""

SETTINGS = {"seed": 3}
fork = multiprocessing.get_context("fork")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="Linux tells which file is flushed"
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(what, name) of all that brings something to the disk, renames or removes."""
    seen: list[tuple[str, str]] = []
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree

    def name(path: object) -> str:
        return (
            Path(str(path)).name.split("-")[0] if ".flash-" in Path(str(path)).name else Path(str(path)).name
        )

    def watched_fsync(handle: int) -> None:
        seen.append(("flush", name(os.readlink(f"/proc/self/fd/{handle}"))))
        fsync(handle)

    def watched_replace(path: object, final: object) -> None:
        seen.append(("rename", name(final)))
        replace(path, final)

    def watched_rmtree(path: object, *args: object, **kwargs: object) -> None:
        seen.append(("remove", name(path)))
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(shutil, "rmtree", watched_rmtree)
    return seen


FRAMES = [torch.zeros(16, 16, 3)] * 2
WRITERS: dict[str, Callable[[Path], object]] = {
    "text.json": lambda path: write_text(path, "{}"),
    "weights.safetensors": lambda path: write_tensors(path, {"a": torch.ones(3)}, {}),
    "video.mp4": lambda path: write_video(path, FRAMES, 8),
    "video.gif": lambda path: write_video(path, FRAMES, 8),
    "loss.csv": lambda path: LossTable(path, 0).close(),
}


@needs_proc
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, told: list, name: str) -> None:
    WRITERS[name](tmp_path / name)
    steps = [("flush", name), ("flush", ".flash"), ("rename", name), ("flush", tmp_path.name)]
    places = [told.index(step) for step in steps]
    assert places == sorted(places)


@needs_proc
def test_all_files_of_a_folder_are_on_the_disk_before_it_has_its_name(tmp_path: Path, told: list) -> None:
    write_video(tmp_path / "pictures", FRAMES, 8)
    rename = told.index(("rename", "pictures"))
    assert {("flush", "00000.png"), ("flush", "00001.png"), ("flush", "pictures")} <= set(told[:rename])
    assert ("flush", tmp_path.name) in told[rename:]


def checkpoint(step: int, loss: float = 1.0) -> Checkpoint:
    weights, state = {"w": torch.full((3,), float(step))}, {"step/w": torch.tensor(float(step))}
    return Checkpoint(Progress(step=step, loss=loss, best=0.5), weights, state)


@needs_proc
def test_a_checkpoint_is_on_the_disk_before_an_old_one_goes(tmp_path: Path, told: list) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    for step in (1, 2):
        run.write(checkpoint(step), keep=1)
    new, old = told.index(("rename", "checkpoint-2")), told.index(("rename", "checkpoint-1"), -8)
    for name in ("trainable.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"):
        assert ("flush", name) in told[:new]
    assert ("flush", "run") in told[new:old]
    assert run.checkpoints() == [2]


def _write_until_the_kill(folder: str, calls: int) -> None:
    """Write checkpoint 5 over a readable one; killed at a call that changes names or removes."""
    left = [calls]

    def dying(function: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    for module, name in ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")):
        setattr(module, name, dying(getattr(module, name)))
    RunFolder(Path(folder), "run", SETTINGS).write(checkpoint(5, loss=2.0), keep=1)


def test_a_kill_between_any_two_changes_of_names_loses_no_checkpoint(tmp_path: Path) -> None:
    """Also where a checkpoint takes the place of one of its own step."""
    for calls in range(40):
        run = RunFolder(tmp_path / str(calls), "run", SETTINGS)
        run.write(checkpoint(5), keep=1)
        child = fork.Process(target=_write_until_the_kill, args=(str(tmp_path / str(calls)), calls))
        child.start()
        child.join()
        found, notes = RunFolder(tmp_path / str(calls), "run", SETTINGS).newest()
        assert found is not None, calls
        assert (found.progress.step, notes) == (5, [])
        assert not [*run.path.glob(".flash-*"), *run.path.glob("*.new")]
        if child.exitcode == 0:
            break
    assert calls > 4
    assert found.progress.loss == 2.0


def _endless(parent: str, log: str, steps: int) -> None:
    """Train, and note the step of each checkpoint once it is written, outside of the disk that is lost."""
    torch.set_num_threads(1)
    weights = {"w": nn.Parameter(torch.zeros(200, 100))}
    run = RunFolder(Path(parent), "run", SETTINGS)
    write = run.write

    def noted(made: Checkpoint, keep: int) -> None:
        write(made, keep)
        with open(log, "a") as file:
            file.write(f"{made.progress.step}\n")

    run.write = noted  # type: ignore[method-assign]

    def loss(part: int) -> Tensor:
        time.sleep(0.002)
        return (weights["w"] - part).square().mean()

    train(run, weights, loss, LoopConfig(steps=steps, save_steps=5, keep=2))


@pytest.fixture
def imported() -> None:
    """What torch imports at the first step of an optimizer, seconds of it, here and not in each child."""
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).step()


def last_noted(log: Path) -> int:
    return int(log.read_text().split()[-1]) if log.exists() and log.read_text().split() else 0


def assert_nothing_lost(parent: Path, noted: int) -> int:
    run = RunFolder(parent, "run", SETTINGS)
    found, _ = run.newest()
    step = found.progress.step if found else 0
    assert step >= noted
    if found:
        LossTable(run.path / "loss.csv", step).close()
        rows = (run.path / "loss.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == [str(i) for i in range(1, step + 1)]
        assert torch.isfinite(found.weights["w"]).all()
    return step


@pytest.mark.usefixtures("imported")
def test_kills_at_random_moments_lose_the_last_interval_alone(tmp_path: Path) -> None:
    draws, log, reached = random.Random(19), tmp_path / "log", []
    for _ in range(KILLS):
        child = fork.Process(target=_endless, args=(str(tmp_path / "runs"), str(log), 10**6))
        child.start()
        time.sleep(draws.uniform(0.05, 1.0))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        reached.append(assert_nothing_lost(tmp_path / "runs", last_noted(log)))
    assert reached == sorted(reached)
    assert reached[-1] > 0


@pytest.mark.usefixtures("imported")
def test_power_cuts_at_random_moments_lose_the_last_interval_alone(tmp_path: Path) -> None:
    """What the disk holds at a moment is what is there after the power comes back."""
    draws, log = random.Random(20), tmp_path / "log"
    image, copy = tmp_path / "disk", tmp_path / "copy"
    make_image(image, 32)
    reached = []
    with mounted_image(image, tmp_path / "mounted") as disk:
        child = fork.Process(target=_endless, args=(str(disk / "runs"), str(log), 10**6))
        child.start()
        try:
            for _ in range(POWER_CUTS):
                time.sleep(draws.uniform(0.5, 6.0))
                os.kill(child.pid, signal.SIGSTOP)  # or the copy would be of two moments
                time.sleep(0.2)
                noted = last_noted(log)
                shutil.copyfile(image, copy)
                os.kill(child.pid, signal.SIGCONT)
                with mounted_image(copy, tmp_path / "again") as after:
                    reached.append(assert_nothing_lost(after / "runs", noted))
        finally:
            child.kill()
            child.join()
    assert reached[-1] > 0
    assert reached == sorted(reached)


def test_through_a_symbolic_link_its_target_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("old", "new"):  # the second has no target yet
        target, link = tmp_path / "there" / f"{name}.json", tmp_path / f"{name}.json"
        link.symlink_to(target)
        if name == "old":
            target.write_text("before")
        write_text(link, "after")
        assert link.is_symlink()
        assert target.read_text() == "after"
    assert sorted(os.listdir(tmp_path / "there")) == ["new.json", "old.json"]


def test_through_a_symbolic_link_to_another_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**20) as disk:
        (tmp_path / "video.gif").symlink_to(disk / "video.gif")
        write_video(tmp_path / "video.gif", FRAMES, 8)
        assert (disk / "video.gif").is_file()
        assert (tmp_path / "video.gif").is_symlink()


def test_a_link_in_a_circle_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_an_old_checkpoint_that_is_a_link_is_dropped_and_not_what_it_points_to(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    run.write(checkpoint(1), keep=1)
    (run.path / "checkpoint-1").rename(tmp_path / "moved")
    (run.path / "checkpoint-1").symlink_to(tmp_path / "moved")
    assert run.newest()[0].progress.step == 1
    run.write(checkpoint(2), keep=1)
    assert run.checkpoints() == [2]
    assert (tmp_path / "moved" / "state.json").is_file()


def test_what_is_discarded_is_never_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    run.write(checkpoint(1), keep=1)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole_module.tempfile.TemporaryDirectory, "cleanup", die)
    with pytest.raises(KeyboardInterrupt):
        discard(run.path / "checkpoint-1")
    assert run.checkpoints() == []


@pytest.mark.parametrize("name", [*WRITERS, "pictures"])
def test_a_full_disk_is_one_sentence_at_every_write(tmp_path: Path, name: str) -> None:
    noise = [torch.rand(128, 128, 3) for _ in range(8)]
    large = {
        "text.json": lambda path: write_text(path, "x" * 10**6),
        "weights.safetensors": lambda path: write_tensors(path, {"a": torch.ones(10**6)}, {}),
        "loss.csv": lambda path: fill_table(LossTable(path, 0)),
    }
    with small_disk(tmp_path / "disk", 2**16) as disk:
        write = large.get(name, lambda path: write_video(path, noise, 8))
        with pytest.raises(NotWritten, match=rf"{name}.* could not be written .*No space left.*make room"):
            write(disk / name)
        assert [path.name for path in disk.iterdir()] == (["loss.csv"] if name == "loss.csv" else [])


def fill_table(table: LossTable) -> None:
    for step in range(10**5):
        table.add(step, 0.0, 0.0)
    table.flush()


def test_a_full_disk_keeps_the_checkpoints_that_it_has(tmp_path: Path) -> None:
    weights = {"w": nn.Parameter(torch.zeros(100, 100))}
    with small_disk(tmp_path / "disk", 400_000) as disk:
        run = RunFolder(disk, "run", SETTINGS)
        with pytest.raises(
            NotWritten, match=r"checkpoint-\d+.* could not be written .*make room on its disk"
        ):
            train(
                run,
                weights,
                lambda part: weights["w"].square().sum(),
                LoopConfig(steps=9, save_steps=1, keep=9),
            )
        kept = run.checkpoints()
        assert 1 <= kept[0] < 9
        assert run.newest()[0].progress.step == kept[0]
        assert not list(run.path.glob(".flash-*"))


def test_every_error_of_the_disk_has_its_number(tmp_path: Path) -> None:
    with pytest.raises(NotWritten) as caught, whole(tmp_path / "a"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert caught.value.errno == errno.EDQUOT


def test_checksums_are_what_sha256sum_reads(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    run.write(checkpoint(1), keep=1)
    if not shutil.which("sha256sum"):
        pytest.skip("there is no sha256sum here")
    words = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(words, cwd=run.path / "checkpoint-1", capture_output=True).returncode == 0
    state = json.loads((run.path / "checkpoint-1" / "state.json").read_text())
    assert state["step"] == 1

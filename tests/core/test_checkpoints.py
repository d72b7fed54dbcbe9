"""Checkpoints that parse but are wrong, odd files of a run, two runs of one name, changed settings."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flash_pack.flash_modules.files.lock import Held, locked
from flash_pack.flash_modules.training.changes import changes
from flash_pack.flash_modules.training.loop import LoopConfig, train
from flash_pack.flash_modules.training.run_folder import (
    Checkpoint,
    Progress,
    RunFolder,
    check_run_name,
    read_losses,
)

SETTINGS = {"seed": 3}
QUICK = LoopConfig(steps=12, learning_rate=1e-2, save_steps=4, keep=2)
fork = multiprocessing.get_context("fork")


def trained(parent: Path, name: str = "run", config: LoopConfig = QUICK, **more: Any) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    weights = {name: nn.Parameter(torch.randn(4, 3, generator=draw)) for name in ("first", "second")}

    def loss(part: int) -> Tensor:
        return sum((weight - part).square().mean() for weight in weights.values())

    train(RunFolder(parent, name, SETTINGS), weights, loss, config, **more)
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """The newest checkpoint of a run of 12 steps; the one before it is of step 8."""
    trained(tmp_path)
    return tmp_path / "run" / "checkpoint-12"


def rewritten(name: str, change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / f"{name}.safetensors")
        change(tensors)
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors"
        )

    return damage


def with_state(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "state.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


def bit_flipped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-3] ^= 1
        (folder / name).write_bytes(data)

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": rewritten("trainable", lambda t: t.pop("first")),
    "more": rewritten("trainable", lambda t: t.update(third=torch.ones(1))),
    "other shape": rewritten("trainable", lambda t: t.update(first=torch.ones(5, 3))),
    "broadcastable": rewritten("trainable", lambda t: t.update(first=torch.ones(3))),
    "one number": rewritten("trainable", lambda t: t.update(first=torch.ones(()))),
    "transposed": rewritten("trainable", lambda t: t.update(first=t["first"].T)),
    "not finite": rewritten("trainable", lambda t: t["first"].fill_(float("nan"))),
    "no weights": lambda folder: shutil.copy(
        folder / "optimizer.safetensors", folder / "trainable.safetensors"
    ),
    "no optimizer": lambda folder: shutil.copy(
        folder / "trainable.safetensors", folder / "optimizer.safetensors"
    ),
    "optimizer without averages": rewritten("optimizer", lambda t: t.pop("exp_avg/first")),
    "optimizer's shape": rewritten("optimizer", lambda t: t.update({"exp_avg/first": torch.ones(3)})),
    "optimizer's step": rewritten("optimizer", lambda t: t.update({"step/first": torch.tensor(1e9)})),
    "optimizer of an earlier step": rewritten(
        "optimizer", lambda t: t.update({f"step/{name}": torch.tensor(8.0) for name in ("first", "second")})
    ),
    "absurd step": with_state(step=10**15),
    "negative step": with_state(step=-12),
    "no whole step": with_state(step=12.0),
    "step that is true": with_state(step=True),
    "loss as text": with_state(loss="low"),
    "loss that is no number": with_state(loss=float("nan")),
    "seconds without end": with_state(seconds=float("inf")),
    "more in the state": with_state(more=1),
    "state as a list": lambda folder: (folder / "state.json").write_text("[12]"),
    "state too deep": lambda folder: (folder / "state.json").write_text("[" * 10**5),
    "state that is no text": lambda folder: (folder / "state.json").write_bytes(b"\xff\xfe\x00"),
    "empty state": lambda folder: (folder / "state.json").write_bytes(b""),
    "pickle": lambda folder: torch.save({}, folder / "optimizer.safetensors"),
}
FLIPPED = {f"bit of {name}": bit_flipped(name) for name in ("trainable.safetensors", "optimizer.safetensors")}
SUMS: dict[str, Callable[[Path], object]] = {
    "empty sums": lambda folder: (folder / "SHA256SUMS").write_text(""),
    "bit of the state": with_state(loss=0.25),
}


def assert_passed_over(parent: Path) -> None:
    notes: list[str] = []
    again = trained(parent, on_note=notes.append)
    assert notes[0].startswith("Checkpoint 12 is damaged and was passed over (")
    assert notes[1:] == ["Going on from step 8."]
    whole = trained(parent, "whole")
    assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert RunFolder(parent, "run", SETTINGS).newest()[0].progress.step == 12


@pytest.mark.parametrize("damage", [*DAMAGES, *FLIPPED, *SUMS])
def test_a_checkpoint_that_is_wrong_is_passed_over(tmp_path: Path, newest: Path, damage: str) -> None:
    {**DAMAGES, **FLIPPED, **SUMS}[damage](newest)
    assert_passed_over(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_so_is_one_without_checksums(tmp_path: Path, newest: Path, damage: str) -> None:
    (newest / "SHA256SUMS").unlink()
    DAMAGES[damage](newest)
    assert_passed_over(tmp_path)


def test_a_checkpoint_of_before_without_checksums_is_gone_on_from(tmp_path: Path, newest: Path) -> None:
    (newest / "SHA256SUMS").unlink()
    notes: list[str] = []
    trained(tmp_path, on_note=notes.append)
    assert notes == ["Going on from step 12."]


def checkpoint(step: int) -> Checkpoint:
    weights, state = {"w": torch.full((3,), float(step))}, {"step/w": torch.tensor(float(step))}
    return Checkpoint(Progress(step=step, loss=1.0, best=0.5), weights, state)


@pytest.mark.parametrize("content", [b"", b"{", None])
def test_checkpoints_that_cannot_be_read_do_not_count_for_keep(tmp_path: Path, content: bytes | None) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    for step in (70, 80, 90):
        folder = run.path / f"checkpoint-{step}"
        folder.mkdir()
        if content is not None:
            (folder / "state.json").write_bytes(content)
    for step in (1, 2, 3):
        run.write(checkpoint(step), keep=2)
        assert run.read(step).progress.step == step
    assert run.checkpoints() == [90, 80, 70, 3, 2]
    assert run.newest()[0].progress.step == 3


def test_one_that_fits_another_training_does_not_count_for_keep(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, "run", SETTINGS)
    run.write(checkpoint(1), keep=2)
    run.write(checkpoint(2), keep=2)
    run.write(Checkpoint(checkpoint(9).progress, {"other": torch.ones(3)}, {"step/other": torch.ones(())}), 2)
    run.write(checkpoint(1), keep=2)

    def fits(found: Checkpoint) -> None:
        if "w" not in found.weights:
            raise ValueError("it is of another training")

    run = RunFolder(tmp_path, "run", SETTINGS)
    assert run.newest(fits)[0].progress.step in (1, 2)
    run.write(checkpoint(3), keep=2)
    assert {9, 3} < set(run.checkpoints())


ODD = {
    "settings.json": [b"", b"  \n", b"{", b"[1]", b"null", b"5", b"\xff\xfe{", b"[" * 10**5, b"\0" * 64],
    "best": [b"", b"many", b"-4", b"4.5", b"\xff", b"9" * 5000, b"\0\0"],
    "loss.csv": [
        b"",
        b"a,b\n1,2\n",
        b"step,seconds,loss\n1,0.1,x\n2,0.2,0.5\n",
        b"\xff\xfe\0s\0t",
        b"\0" * 99,
    ],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, odd) for name, all_odd in ODD.items() for odd in all_odd]
)
def test_a_file_of_the_run_that_is_odd_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    RunFolder(tmp_path, "run", SETTINGS)
    (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"run/{name} ") as caught:
        RunFolder(tmp_path, "run", SETTINGS)
    assert not isinstance(caught.value, UnicodeError)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "tail", [b"3,0.3", b"3,0.", b"\0" * 4096, b"3,0.3,nan\n", b"\xe2\x82", b"3,\xff,1\n"]
)
def test_what_a_power_cut_leaves_at_the_end_of_the_losses_is_dropped(tmp_path: Path, tail: bytes) -> None:
    (tmp_path / "loss.csv").write_bytes(b"step,seconds,loss\n1,0.1,3\n2,0.2,2\n" + tail)
    assert read_losses(tmp_path / "loss.csv") == [3.0, 2.0]


def _hold(folder: str, ready: Any, end: Any) -> None:
    with RunFolder(Path(folder), "run", SETTINGS).held():
        ready.set()
        end.wait(60)


def test_a_second_run_of_one_name_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    ready, end = fork.Event(), fork.Event()
    first = fork.Process(target=_hold, args=(str(tmp_path), ready, end))
    first.start()
    assert ready.wait(60)
    draft = tmp_path / "run" / ".flash-of-the-first"
    draft.mkdir()
    with pytest.raises(
        ValueError, match=r"The run 'run' is being trained by another process, in .*run: wait"
    ):
        RunFolder(tmp_path, "run", SETTINGS)
    assert draft.is_dir()
    RunFolder(tmp_path, "other", SETTINGS)
    end.set()
    first.join()
    RunFolder(tmp_path, "run", SETTINGS)
    assert sorted(os.listdir(tmp_path / "run")) == ["settings.json"]


def test_training_holds_the_folder_too(tmp_path: Path) -> None:
    refused = []

    def second(progress: Progress) -> None:
        with pytest.raises(ValueError, match="being trained by another process"):
            RunFolder(tmp_path, "run", SETTINGS)
        refused.append(progress.step)

    trained(tmp_path, on_step=second)
    assert refused == list(range(1, 13))


def test_a_kill_lets_go_of_the_folder(tmp_path: Path) -> None:
    ready, end = fork.Event(), fork.Event()
    first = fork.Process(target=_hold, args=(str(tmp_path), ready, end))
    first.start()
    assert ready.wait(60)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    RunFolder(tmp_path, "run", SETTINGS)


def _count_alone(folder: str, rounds: int) -> None:
    """Add to a number that is read and written in two steps."""
    done = 0
    while done < rounds:
        try:
            with locked(Path(folder)):
                file = Path(folder) / "number"
                number = int(file.read_text())
                file.write_text("")
                file.write_text(str(number + 1))
                done += 1
        except Held:
            pass


def test_a_lock_lets_in_one_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    children = [fork.Process(target=_count_alone, args=(str(tmp_path), 200)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert (tmp_path / "number").read_text() == "600"
    assert os.listdir(tmp_path) == ["number"]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("runs/wave/wave.safetensors/", "wave.safetensors is a folder, but the run's result gets that name"),
        ("runs/wave", r"wave is a file, and no run can lie in it"),
        ("runs", r"runs is a file, and no run can lie in it"),
    ],
)
def test_a_place_where_no_run_can_lie_is_told_before(tmp_path: Path, place: str, sentence: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if place.endswith("/") else path.touch()
    with pytest.raises(ValueError, match=sentence):
        check_run_name(tmp_path / "runs", "wave")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    check_run_name(tmp_path, "a" * 200)
    with pytest.raises(ValueError, match=r"must be letters, digits, .*at most 200 bytes"):
        check_run_name(tmp_path, "a" * 201)
    assert not list(tmp_path.iterdir())


def test_a_run_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run").symlink_to(tmp_path / "disk")
    trained(tmp_path / "runs")
    assert (tmp_path / "runs" / "run").is_symlink()
    assert (tmp_path / "disk" / "checkpoint-12").is_dir()


HASHES = "3fa4" * 16, "9bc1" * 16
CLIPS = [{"action": "run", "caption": f"a girl runs {i}", "sha256": f"{i:064x}"} for i in range(4)]


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ({"tau": 90.0}, {"tau": 50.0}, ["tau: 90.0 then, 50.0 now"]),
        (
            {"method": {"p": 0.5, "alignment": {"tau": 90.0, "more": 1}}},
            {"method": {"p": 0.7, "alignment": {"tau": 50.0, "more": 1}}},
            ["method: alignment: tau: 90.0 then, 50.0 now", "method: p: 0.5 then, 0.7 now"],
        ),
        (
            {"base": HASHES[0]},
            {"base": HASHES[1]},
            ["base: 3fa43fa4... (SHA-256) then, 9bc19bc1... (SHA-256) now"],
        ),
        (
            {"clips": CLIPS},
            {"clips": [*CLIPS[:3], {**CLIPS[3], "caption": "a boy runs"}]},
            ['clips: 4: caption: "a girl runs 3" then, "a boy runs" now'],
        ),
        (
            {"clips": CLIPS[:3]},
            {"clips": CLIPS},
            ["clips: 3 entries then, 4 entries (only there: a girl runs 3) now"],
        ),
        ({"clips": ["a", "b"]}, {"clips": ["a"]}, ['clips: ["a", "b"] then, ["a"] now']),
        ({"more": {"a": 1}}, {}, ['more: {"a": 1} then, null now']),
        (
            {"text": "x" * 100 + "then"},
            {"text": "x" * 100 + "now"},
            ['text: ...xxxxxxxxxxthen" then, ...xxxxxxxxxxnow" now'],
        ),
        ({"a": None}, {}, []),
    ],
)
def test_each_field_that_differs_is_named_with_both_values(then: dict, now: dict, said: list[str]) -> None:
    assert list(changes(then, now)) == said


def test_very_many_changes_are_counted() -> None:
    found = list(changes({str(i): 0 for i in range(30)}, {str(i): 1 for i in range(30)}))
    assert (len(found), found[-1]) == (21, "and 10 more")

"""The command line's exam, what it begins with, and how runs from before there were exams go on."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flash_pack.flash_modules.cli import train as room
from flash_pack.flash_modules.flash.training.exam import ActionExam
from flash_pack.flash_modules.training.exam import read_marks
from flash_pack.tests.backends.command_line import sentence_of
from flash_pack.tests.backends.test_cli_train import quick as quick
from flash_pack.tests.backends.test_cli_train import run_train


@pytest.fixture
def train(training_files: Path, tmp_path: Path):
    """`run_train` with runs of its own, on six clips."""
    folder = tmp_path / "run_fast"
    folder.mkdir()
    for number in range(6):
        shutil.copy(training_files / "run_fast" / "a.gif", folder / f"{number}.gif")
    return partial(run_train, training_files, tmp_path / "runs", clips=folder)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exam is taken at every other step, and not once in a hundred."""
    monkeypatch.setattr(ActionExam, "every", 2)


def test_exams_are_in_a_table_on_the_board_and_in_words(
    train, often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=5) == 0
    said = capsys.readouterr().out
    settings = json.loads((tmp_path / "runs" / "jump" / "settings.json").read_text())
    assert (len(settings["clips"]), len(settings["exam"]["clips"])) == (5, 1)
    assert "Kept aside for the exam: " in said
    assert "Exam (error on moving parts of what it never saw): " in said
    marks = read_marks(tmp_path / "runs" / "jump")
    assert [one.step for one in marks] == [0, 2, 4]
    curves = EventAccumulator(str(tmp_path / "runs" / "jump" / "tensorboard")).Reload()
    for name in ("kept_aside", "learned_from", "gap"):
        found = [(point.step, point.value) for point in curves.Scalars(f"exam/{name}")]
        assert found == [(one.step, pytest.approx(getattr(one, name), abs=1e-4)) for one in marks]


def test_without_an_exam_every_clip_is_learned_from(train, often: None, tmp_path: Path) -> None:
    assert train("--no-exam", steps=3) == 0
    settings = json.loads((tmp_path / "runs" / "jump" / "settings.json").read_text())
    assert len(settings["clips"]) == 6
    assert "exam" not in settings
    assert not (tmp_path / "runs" / "jump" / "exam.csv").exists()


def test_a_run_from_before_there_were_exams_goes_on_without(
    train, often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the settings of one without an exam; the command is the plain one."""
    assert train("--no-exam", steps=2) == 0
    capsys.readouterr()
    assert train(steps=3) == 0
    assert "Going on from step 2." in capsys.readouterr().out
    assert not (tmp_path / "runs" / "jump" / "exam.csv").exists()


def test_a_run_with_an_exam_does_not_go_on_without(
    train, often: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=2) == 0
    capsys.readouterr()
    assert train("--no-exam", steps=3) == 2
    assert "was begun with other settings (clips: 5 entries" in sentence_of(capsys.readouterr().err)


def action_of(tmp_path: Path, name: str) -> Path:
    return tmp_path / "runs" / name / f"{name}.safetensors"


def test_it_begins_with_an_action(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After no step it would be that action; what it learns is told as the difference to the base."""
    assert train(steps=3, lr=1e-2) == 0
    seen: list[dict[str, torch.Tensor]] = []
    begin = room.begin_with

    def noted(training, action) -> list[str]:
        notes = begin(training, action)
        seen.append({name: weight.detach().clone() for name, weight in training.host.weights.items()})
        return notes

    monkeypatch.setattr(room, "begin_with", noted)
    first = action_of(tmp_path, "jump")
    assert train(steps=1, lr=1e-6, out="more", **{"from-action": first}) == 0
    learned, more = load_file(first), load_file(action_of(tmp_path, "more"))
    moved = [name for name, weight in learned.items() if name.endswith(".diff") and weight.any()]
    assert moved
    for name in learned:
        torch.testing.assert_close(more[name], learned[name], atol=1e-5, rtol=1e-2)
    for name, weight in seen[0].items():
        if name in learned:
            torch.testing.assert_close(weight, learned[name].float(), atol=2e-3, rtol=1e-3)
    with safe_open(action_of(tmp_path, "more"), "pt") as file:
        told = json.loads(file.metadata()["flash.started_from"])
    settings = json.loads((tmp_path / "runs" / "more" / "settings.json").read_text())
    assert told == {"name": "jump", "sha256": settings["start"], "version": ""}


def test_a_run_goes_on_only_with_the_action_it_began_with(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=1) == 0
    assert train(steps=1, out="more", **{"from-action": action_of(tmp_path, "jump")}) == 0
    capsys.readouterr()
    assert train(steps=2, out="more") == 2
    assert "was begun with other settings (start: " in sentence_of(capsys.readouterr().err)


def test_an_action_of_whole_modules_needs_whole_modules(
    train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=1, lr=1e-2, trainable="motion_module") == 0
    capsys.readouterr()
    assert train(steps=1, out="more", **{"from-action": action_of(tmp_path, "jump")}) == 2
    said = sentence_of(capsys.readouterr().err)
    assert "The action 'jump' changed weights that would not learn here (" in said
    assert said.endswith("train the whole motion_module, or begin without it.")

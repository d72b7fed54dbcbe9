"""The study of LoRAs on the small Wan, as far as it goes without ComfyUI."""

import json
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.base.comfyui import use_comfyui
from actors.studies.transfer_arms import BEFORE
from actors.studies.transfer_tables import lesson_tables
from actors.studies.wan_transfer import WAN_ARMS, WanRun

ACTIONS = ("arm wave", "soccer shoot")


def run(out: Path, arm: str, action: str, seed: int = 0) -> WanRun:
    control = ACTIONS[1 - ACTIONS.index(action)]
    places = {"num_clips": 1, "num_pictures": 0, "base": Path("weights"), "out": out}
    return WanRun(arm=arm, action=action, control=control, seed=seed, steps=3, **places)


def finish(one: WanRun, new: float, control: float) -> None:
    """As if it had been run."""
    errors = {
        name: {"figures": value, "around": 0.1}
        for name, value in (
            ("taught", new / 2),
            ("taught motion, new look", new),
            ("new motion, taught look", new),
            ("new", new),
            ("control", control),
        )
    }
    one.folder.mkdir(parents=True)
    file = one.folder / f"exam-{one.exam_steps[-1]:05d}.json"
    file.write_text(json.dumps({"settings": json.loads(json.dumps(one.settings)), "result": errors}))


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.studies.transfer_runs.image_size", lambda folder: 64)


def test_arms_differ_in_what_they_are_named_after_alone() -> None:
    for name, arm in WAN_ARMS.items():
        method = arm.method
        assert method.timesteps.law == "shifted"
        assert arm.drawn_twins == ("perfect twins" in name)
        aligned = "#5" in name
        assert (method.alignment.tau, method.alignment.p) == ((90.0, 0.5) if aligned else (100.0, 0.0))
        assert method.alignment.exclude_first
        assert method.twins != name.startswith("#1")
        assert arm.accumulation == (2 if name.startswith("#1") else 1)  # as many videos a step
    assert len({(arm.per_clip, arm.renew_steps, arm.learning_rate) for arm in WAN_ARMS.values()}) == 1


@pytest.mark.usefixtures("_small")
def test_a_lesson_is_done_when_its_exam_is_there(tmp_path: Path) -> None:
    before, lesson = run(tmp_path, BEFORE, "arm wave"), run(tmp_path, "#5", "arm wave")
    assert (before.exam_steps, lesson.exam_steps) == ([0], [3])
    assert not lesson.done
    finish(lesson, 0.5, 0.6)
    assert lesson.done
    assert lesson.folder != before.folder


@pytest.mark.usefixtures("_small")
def test_tables_hold_a_lesson_against_the_control_and_against_what_was_before(tmp_path: Path) -> None:
    runs = [run(tmp_path, arm, action) for arm in (BEFORE, "#2", "#5") for action in ACTIONS]
    for one, (new, control) in zip(runs[:4], ((1.0, 1.0), (2.0, 2.0), (0.7, 1.2), (1.5, 2.4)), strict=True):
        finish(one, new, control)
    text = lesson_tables(runs)
    # of the action: what the lesson on the other one leaves of this action's error, less what its own leaves
    assert "| #2 | 2 | 1.1000 ± 0.5657 | 1.8000 ± 0.8485 |" in text
    row = next(line for line in text.splitlines() if line.startswith("| #2 |") and "0.2000" in line)
    assert "0.4000 ± 0.1414" in row  # less than before: 0.3 and 0.5
    assert text.endswith("4 of 6 runs are done.")


def test_without_comfyui_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"There is no ComfyUI at .*nowhere, .* set COMFYUI_PATH"):
        use_comfyui()


def test_one_action_has_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wan-transfer", "--actions", "arm wave"]) == 2
    assert "Each action is the control of another" in capsys.readouterr().err

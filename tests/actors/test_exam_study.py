"""The study of the exam: every examined step is judged, and the chosen one held against the last."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from actors.__main__ import main
from actors.studies import exam, learning
from actors.studies.learning import Evaluation
from actors.world.clips import true_clips
from flash_modules.flash.training.exam import ActionExam
from flash_modules.training.exam import Marks


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip, one picture, two sampling steps; the exam is taken at each step."""
    monkeypatch.setattr(learning, "_TIMESTEPS", (300,))
    monkeypatch.setattr(learning, "SAMPLER", replace(learning.SAMPLER, steps=2))
    monkeypatch.setattr(learning, "POOL", 1)
    monkeypatch.setattr(learning, "true_clips", partial(true_clips, num=2))
    monkeypatch.setattr(exam, "Evaluation", partial(Evaluation, num_clips=1, num_pictures=1))
    monkeypatch.setattr(exam, "SAVE_STEPS", 1)
    monkeypatch.setattr(ActionExam, "every", 1)


def test_the_chosen_step_is_held_against_the_last(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["exam", "--base", str(tiny_base), "--out", str(tmp_path), "--seeds", "1", "--steps", "3"]
    words += ["--clips", "2", "--action", "arm wave"]
    assert main(words) == 0
    said = capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    file = folder / "result.json"
    kept = json.loads(file.read_text())
    results = kept["result"]
    assert [one["marks"]["step"] for one in results] == [1, 2, 3]  # not of step 0, which has no checkpoint
    errors = [one["denoising_error"] for one in results]
    assert len(set(errors)) == 3
    assert results[-1]["joint_error"] is not None
    best = min(results, key=lambda one: one["marks"]["kept_aside"])
    difference = best["denoising_error"] - errors[-1]
    assert (
        f"chosen {best['marks']['step']}, last 3: loss in new looks {difference:+.4f}, joint error " in said
    )
    assert f"| **{best['marks']['step']}** | {best['marks']['kept_aside']:.4f} |" in said
    results[0]["marks"]["kept_aside"], results[0]["joint_error"] = 0.001, 7.5
    file.write_text(json.dumps(kept))
    assert main(words) == 0  # what is done is kept
    assert "| **1** | 0.0010 |" in capsys.readouterr().out


def test_the_exam_chooses_the_least_error_of_what_was_never_seen() -> None:
    marks = [Marks(step=i, kept_aside=error, learned_from=-i) for i, error in enumerate((0.3, 0.1, 0.2))]
    assert exam.chosen(marks).step == 1

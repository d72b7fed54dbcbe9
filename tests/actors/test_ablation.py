"""Learning on actors: the exam, runs that are kept, and the table."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from actors import ablation, learning
from actors.ablation import BEFORE, Result, result, table
from actors.base.pretrain import MINUTES, STAGES, Pretraining
from actors.base.training import Limit
from actors.learning import Exam, Lesson, prepare
from actors.measures import Scores
from actors.reader import Reader, load_reader

SCORES = Scores(
    joint_error=10.0,
    joint_floor=2.0,
    still_error=12.0,
    flow_cosine=0.5,
    likeness=0.9,
    leak=0.2,
    jump_ratio=1.0,
    consistency=0.9,
    sharpness=1.0,
)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base after a step of each stage."""
    folder = tmp_path_factory.mktemp("base")
    limits = dict.fromkeys(MINUTES, Limit(steps=1))
    made = Pretraining(out=folder, limits=limits, num_clips=2, seed=0, workers=1)
    for stage in STAGES.values():
        stage(made)
    return folder / "export"


@pytest.fixture
def small_exam(monkeypatch: pytest.MonkeyPatch) -> None:
    """One clip, one picture, two sampling steps."""
    monkeypatch.setattr(ablation, "Exam", partial(Exam, num_clips=1, num_pictures=1))
    monkeypatch.setattr(learning, "SAMPLER", replace(learning.SAMPLER, steps=2))


def test_a_run_learns_and_its_result_is_kept(
    tmp_path: Path, reader: Reader, base: Path, small_exam: None
) -> None:
    lesson = Lesson(action="soccer shoot", num_clips=2, steps=2)
    before = result(lesson, tmp_path / "before", reader, base, trained=False)
    after = result(lesson, tmp_path / "after", reader, base, trained=True)
    assert before.loss is None
    assert after.loss is not None
    assert after.loss > 0
    assert before.noise_error != after.noise_error
    assert before.scores[0].joint_floor == after.scores[0].joint_floor
    kept = tmp_path / "after" / "result.json"
    kept.write_text(kept.read_text().replace(f'"noise_error": {after.noise_error}', '"noise_error": 7.5'))
    assert result(lesson, tmp_path / "after", reader, base, trained=True) == replace(after, noise_error=7.5)


def test_the_exam_is_the_same_each_time_and_holds_other_clips_in_other_looks(
    tmp_path: Path, reader: Reader, base: Path
) -> None:
    lesson = Lesson(action="arm wave", num_clips=2)
    training, exam = prepare(lesson, tmp_path, base), Exam("arm wave", reader, num_clips=2)
    assert exam.noise_error(training) == exam.noise_error(training)
    taught = {clip.look for clip in lesson.clips}
    assert not taught & {clip.look for clip in exam.clips}
    assert not {clip.motion for clip in lesson.clips} & {clip.motion for clip in exam.clips}


def test_seeds_are_other_clips() -> None:
    captions = [
        [clip.caption for clip in Lesson(action="arm wave", seed=seed, num_clips=3).clips]
        for seed in (0, 0, 1)
    ]
    assert captions[0] == captions[1] != captions[2]


def test_the_table_says_what_each_variant_closes() -> None:
    before = Result(loss=None, noise_error=0.2, scores=[SCORES])
    results = {
        BEFORE: [before, before],
        1: [
            Result(loss=0.1, noise_error=0.15, scores=[replace(SCORES, joint_error=error)])
            for error in (5.0, 7.0)
        ],
        5: [],
    }
    lines = table(results).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| before |  | 0.2000 ± 0.0000 | 10.0 ± 0.0 |  | 0.90 ± 0.00 | 0.20 ± 0.00 |"
    assert (
        lines[3] == "| #1 | 0.1000 ± 0.0000 | 0.1500 ± 0.0000 | 6.0 ± 1.4 | 50% | 0.90 ± 0.00 | 0.20 ± 0.00 |"
    )


def test_no_run_is_begun_when_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def run(lesson: Lesson, folder: Path, reader: Reader, base: Path, *, trained: bool) -> Result:
        begun.append(folder.name)
        return Result(loss=0.1 if trained else None, noise_error=0.1, scores=[SCORES])

    monkeypatch.setattr(ablation, "result", run)
    words = [
        "ablate",
        "--out",
        str(tmp_path),
        "--actions",
        "arm wave",
        "--variants",
        "1",
        "5",
        "--seeds",
        "2",
    ]
    from actors.__main__ import main

    assert main(words) == 0
    assert begun == [f"arm-wave-{variant}-seed{seed}-300" for seed in (0, 1) for variant in (0, 1, 5)]
    assert "All 6 runs are done." in capsys.readouterr().out
    begun.clear()
    times = iter([0.0, 1.0, 5000.0, 5000.0])
    monkeypatch.setattr(ablation.time, "monotonic", lambda: next(times))
    assert main([*words, "--hours", "1"]) == 0
    assert len(begun) == 1
    assert "5 of 6 runs were not begun." in capsys.readouterr().out

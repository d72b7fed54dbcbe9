"""Learning on actors: the evaluation, runs that are kept, and the table."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from actors.__main__ import main
from actors.judge.measures import Scores
from actors.judge.reader import Reader, load_reader
from actors.studies import ablation, learning
from actors.studies.ablation import BEFORE, CONDITIONS, TABLES, Judge, Result, figure, table
from actors.studies.learning import Evaluation, Lesson, prepare
from actors.world.clips import true_clips

SCORES = Scores(
    joint_error=10.0,
    joint_floor=2.0,
    still_error=12.0,
    flow_cosine=0.5,
    recognised=0.4,
    likeness=0.9,
    leak=0.2,
    jump_ratio=1.0,
    consistency=0.9,
    sharpness=1.0,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the noise is taken at two timesteps of five."""
    monkeypatch.setattr(learning, "_TIMESTEPS", (300, 700))


@pytest.fixture(scope="module")
def reader() -> Reader:
    return load_reader()


@pytest.fixture
def judge(reader: Reader, tiny_base: Path, tiny_details: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """It asks for one clip and one picture, in two sampling steps; a clip is encoded once, truths are two."""
    monkeypatch.setattr(learning, "SAMPLER", replace(learning.SAMPLER, steps=2))
    monkeypatch.setattr(learning, "POOL", 1)
    monkeypatch.setattr(learning, "true_clips", partial(true_clips, num=2))
    return Judge(reader, tiny_base, tiny_details, partial(Evaluation, num_clips=1, num_pictures=1))


def test_a_run_learns_and_its_result_is_kept(tmp_path: Path, judge: Judge) -> None:
    lesson = Lesson(actions=("soccer shoot",), num_clips=2, steps=2)
    before = judge.result(lesson, "soccer shoot", tmp_path / "before", trained=False)
    after = judge.result(lesson, "soccer shoot", tmp_path / "after", trained=True)
    assert before.loss is None
    assert after.loss is not None
    assert after.loss > 0
    assert before.denoising_error != after.denoising_error
    assert before.scores[0].joint_floor == after.scores[0].joint_floor
    assert after.scores[0].sharpness != after.detailed[0].sharpness
    kept = tmp_path / "after" / "result-soccer-shoot.json"
    kept.write_text(
        kept.read_text().replace(f'"denoising_error": {after.denoising_error}', '"denoising_error": 7.5')
    )
    again = judge.result(lesson, "soccer shoot", tmp_path / "after", trained=True)
    assert again == replace(after, denoising_error=7.5)


def test_actions_learned_together_are_one_training(tmp_path: Path, judge: Judge) -> None:
    lesson = Lesson(actions=("arm wave", "soccer shoot"), num_clips=1, steps=1)
    first = judge.result(lesson, "arm wave", tmp_path, trained=True)
    state = (tmp_path / "run" / "loss.csv").read_bytes()
    second = judge.result(lesson, "soccer shoot", tmp_path, trained=True)
    assert (tmp_path / "run" / "loss.csv").read_bytes() == state
    assert state.count(b"\n") == 1 + 2  # a step for each action
    assert first.loss == second.loss
    assert first.scores != second.scores


def test_the_exam_is_the_same_each_time_and_holds_other_clips_in_other_looks(
    tmp_path: Path, reader: Reader, tiny_base: Path
) -> None:
    lesson = Lesson(actions=("arm wave",), num_clips=2)
    training, evaluation = prepare(lesson, tmp_path, tiny_base), Evaluation("arm wave", reader, num_clips=2)
    assert evaluation.denoising_error(training) == evaluation.denoising_error(training)
    taught = lesson.clips["arm wave"]
    assert not {clip.look for clip in taught} & {clip.look for clip in evaluation.clips}
    assert not {clip.motion for clip in taught} & {clip.motion for clip in evaluation.clips}


def test_clips_and_pictures_are_filmed_from_nearby_in_the_size_asked_for(reader: Reader) -> None:
    lesson = Lesson(actions=("arm wave",), num_clips=1, size=64)
    evaluation = Evaluation("arm wave", reader, size=64, num_clips=1, num_pictures=1)
    for clip in (*lesson.clips["arm wave"], *evaluation.clips, *evaluation.standards[0].truths):
        assert clip.motion.camera.close
        assert clip.frames_FHW3.shape[1:3] == (64, 64)
    assert lesson.config.method.augment.size == 64


def test_seeds_are_other_clips() -> None:
    captions = [
        [clip.caption for clip in Lesson(actions=("arm wave",), seed=seed, num_clips=3).clips["arm wave"]]
        for seed in (0, 0, 1)
    ]
    assert captions[0] == captions[1] != captions[2]


def made(joint_error: float, *, loss: float | None = 0.1, detailed: float = 1.0) -> Result:
    return Result(
        loss=loss,
        denoising_error=0.15,
        scores=[replace(SCORES, joint_error=joint_error)],
        detailed=[replace(SCORES, joint_error=detailed)],
    )


def test_the_table_says_what_each_condition_closes() -> None:
    results = {
        BEFORE: [made(10.0, loss=None)] * 2,
        "#1": [made(5.0), made(7.0)],
        "#5": [made(4.0, detailed=2.0)],
    }
    lines = table(results, TABLES["variants"]).splitlines()
    assert "gap closed ↑ | joint error, % ↓ | recognised ↑ | flow cosine ↑ |" in lines[0]
    assert lines[2].startswith("| before learning |  | 0.1500 ± 0.0000 |  | 10.0 ± 0.0 | 0.40 ± 0.00 |")
    assert lines[3].startswith("| #1 | 0.1000 ± 0.0000 | 0.1500 ± 0.0000 | 50% | 6.0 ± 1.4 |")
    assert lines[4].startswith("| #5 | 0.1000 | 0.1500 | 75% | 4.0 |")
    assert lines[5].startswith("| #6 | 0.1000 | 0.1500 | 100% | 2.0 |")
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1


def test_the_figure_has_a_column_for_each_variant_that_was_run() -> None:
    results = {BEFORE: [made(10.0)], "#1": [made(5.0), made(7.0)], "#5": [made(4.0)]}
    root = ElementTree.fromstring(figure(results))
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert words[1:] == [
        *("still picture 12.0", "another true video 2.0"),
        *("10.0", "before learning", "6.0", "#1", "4.0", "#5", "1.0", "#6"),
    ]
    assert len([element for element in root.iter() if element.tag.endswith("circle")]) == 5


def test_each_condition_differs_from_the_others() -> None:
    conditions = [*CONDITIONS.values()]
    assert all(condition not in conditions[:i] for i, condition in enumerate(conditions))
    assert {name for names in TABLES.values() for name in names} - {"#6"} == {*CONDITIONS}


def test_no_run_is_begun_when_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def result(judge: Judge, lesson: Lesson, action: str, folder: Path, *, trained: bool) -> Result:
        begun.append(folder.name)
        return made(5.0, loss=0.1 if trained else None)

    monkeypatch.setattr(Judge, "result", result)
    words = ["ablate", "--out", str(tmp_path), "--actions", "arm wave", "--tables", "variants", "clips"]
    words += ["--ways", "#1", "#1, 4 clips", "#1, jointly", "--seeds", "2"]
    assert main(words) == 0
    assert begun == [
        *(
            f"arm-wave-{condition}-seed{i}-{Lesson.steps}"
            for i in (0, 1)
            for condition in ("before-learning", "1")
        ),
        *(f"{run}-seed{i}-{Lesson.steps}" for i in (0, 1) for run in ("arm-wave-1-4-clips", "all-1-jointly")),
    ]
    assert "All 8 runs are done." in capsys.readouterr().out
    assert "<svg" in (tmp_path / "variants.svg").read_text()
    begun.clear()
    times = iter([0.0, 1.0, 5000.0, 5000.0])
    monkeypatch.setattr(ablation.time, "monotonic", lambda: next(times))
    assert main([*words, "--hours", "1"]) == 0
    assert len(begun) == 1
    assert "7 of 8 runs were not begun." in capsys.readouterr().out

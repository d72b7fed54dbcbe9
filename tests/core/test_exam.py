"""The exam of a run: when it is taken, what is kept of it, and what is said of it; whatever it asks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flash_pack.flash_modules.training.exam import (
    SHARE,
    ExamRecord,
    Marks,
    begun_without_exam,
    read_marks,
    steps_between,
    verdict,
)
from flash_pack.flash_modules.training.loop import Diverged, LoopConfig, train
from flash_pack.flash_modules.training.run_folder import RunFolder


class Falling:
    """An exam whose errors are 1 / (how often it was taken)."""

    every = 3

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> tuple[float, float]:
        self.count += 1
        return 1 / self.count, 0.5 / self.count


def sit(
    folder: Path,
    exam: Callable[[], tuple[float, float]],
    steps: int = 8,
    break_at: int | None = None,
    save_steps: int = 100,
) -> list[int]:
    """A training of one number; the result is the steps at which marks were told."""
    weight = nn.Parameter(torch.ones(()))
    told: list[int] = []

    def loss(number: int) -> Tensor:
        if number == break_at:
            raise KeyboardInterrupt
        return weight.square()

    train(
        RunFolder(folder.parent, folder.name, {"exam": True}),
        {"weight": weight},
        loss,
        LoopConfig(steps=steps, save_steps=save_steps),
        exam=exam,  # type: ignore[arg-type]
        on_marks=lambda marks: told.append(marks.step),
    )
    return told


def test_it_is_taken_at_the_start_and_every_so_many_steps(tmp_path: Path) -> None:
    assert sit(tmp_path / "run", Falling()) == [0, 3, 6]
    marks = read_marks(tmp_path / "run")
    assert [one.step for one in marks] == [0, 3, 6]
    assert marks[1] == Marks(step=3, kept_aside=0.5, learned_from=0.25)
    assert marks[1].gap == 0.25
    lines = (tmp_path / "run" / "exam.csv").read_text().splitlines()
    assert lines[0] == "step,seconds,kept_aside,learned_from"


def test_a_run_that_goes_on_takes_none_twice(tmp_path: Path) -> None:
    exam = Falling()
    with pytest.raises(KeyboardInterrupt):
        sit(tmp_path / "run", exam, break_at=4)
    assert sit(tmp_path / "run", exam) == [6]
    assert [one.step for one in read_marks(tmp_path / "run")] == [0, 3, 6]
    assert exam.count == 3


def test_exams_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    record = ExamRecord(Falling(), tmp_path, step=0, steps=9)
    for step in (0, 3, 6):
        assert record.take_if_due(step, 1.0)
    record.close()
    again = ExamRecord(Falling(), tmp_path, step=4, steps=9)
    assert [again.take_if_due(step, 1.0) is None for step in (3, 5, 6)] == [True, True, False]
    again.close()
    assert [(one.step, one.kept_aside) for one in read_marks(tmp_path)] == [(0, 1.0), (3, 0.5), (6, 1.0)]


def test_one_that_was_broken_off_is_taken_when_the_run_goes_on(tmp_path: Path) -> None:
    class Broken(Falling):
        def __call__(self) -> tuple[float, float]:
            if self.count == 1:
                raise KeyboardInterrupt
            return super().__call__()

    with pytest.raises(KeyboardInterrupt):
        sit(tmp_path / "run", Broken())
    run = RunFolder(tmp_path, "run", {"exam": True})
    assert run.checkpoints() == [3]  # the step before it is whole
    assert sit(tmp_path / "run", Falling()) == [3, 6]


def test_a_run_too_short_for_a_second_one_takes_none(tmp_path: Path) -> None:
    assert sit(tmp_path / "run", Falling(), steps=2) == []
    assert sit(tmp_path / "run", Falling(), steps=4) == [3]


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_an_error_that_is_no_number_ends_the_run(tmp_path: Path, error: float) -> None:
    class Lost(Falling):
        def __call__(self) -> tuple[float, float]:
            return error, 1.0

    with pytest.raises(Diverged, match=r"The exam at step 0 gave .*: use a lower learning rate, or bf16"):
        sit(tmp_path / "run", Lost())
    assert read_marks(tmp_path / "run") == []


@pytest.mark.parametrize("cost", [0.1, 0.5, 1.0, 2.0, 3.0, 7.0, 40.0])
def test_all_exams_together_take_no_more_than_their_share(cost: float) -> None:
    every = steps_between(cost)
    for steps in (every, every + 1, 2 * every - 1, 10 * every, 10 * every + 3):
        exams = 1 + steps // every  # one at step 0
        assert exams * cost <= SHARE * steps + 1e-9


def test_exams_fall_on_the_usual_checkpoints() -> None:
    assert {500 % steps_between(cost) for cost in (0.1, 0.5, 1.0, 2.0, 3.0, 7.0)} == {0}
    assert steps_between(40.0) % 500 == 0


def told(*errors: float, gap: float = 0.0) -> list[str]:
    marks = [
        Marks(step=100 * i, kept_aside=error, learned_from=error - gap * i) for i, error in enumerate(errors)
    ]
    return [*verdict(marks)]


def test_it_says_that_more_steps_brought_nothing() -> None:
    (line,) = told(0.4, 0.3, 0.25, 0.26, 0.27, 0.26)
    assert line == (
        "Exam (error on moving parts of what it never saw): 0.4000 at step 0, 0.2600 at step 500; it was as "
        "good at step 200 (0.2500), and more steps brought nothing."
    )


def test_a_last_third_that_brings_half_a_percent_brings_nothing() -> None:
    assert "brought nothing" in told(0.4, 0.3, 0.25, 0.25, 0.2499, 0.2498)[0]
    assert "more steps may bring more" in told(0.4, 0.3, 0.25, 0.24, 0.23, 0.22)[0]


def test_it_says_that_a_run_begins_to_copy() -> None:
    _, line = told(0.4, 0.38, 0.36, 0.34, gap=0.02)
    assert line.startswith("The error of what it learned from fell by 30%, that of what it never saw by 15%")
    assert len(told(0.4, 0.38, 0.36, 0.34, gap=0.005)) == 1


def test_of_two_exams_nothing_is_said() -> None:
    assert told(0.4, 0.3) == []


def test_runs_from_before_there_were_exams_are_known(tmp_path: Path) -> None:
    RunFolder(tmp_path, "old", {"seed": 1})
    RunFolder(tmp_path, "new", {"seed": 1, "exam": {"videos": 2}})
    files = [tmp_path / name / "settings.json" for name in ("old", "new", "none")]
    assert [begun_without_exam(file) for file in files] == [True, False, False]


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exam.csv").write_text("step,seconds,loss\n1,0.1,0.5\n")
    with pytest.raises(ValueError, match="it is no table of step, seconds, kept_aside, learned_from"):
        read_marks(tmp_path)

"""A run on disk: its settings, its checkpoints, its losses."""

from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.training.run_folder import Checkpoint, LossTable, Progress, RunFolder

SETTINGS = {"clips": ["a", "b"], "seed": 3}


def run_at(tmp_path: Path, name: str = "run") -> RunFolder:
    return RunFolder(tmp_path, name, SETTINGS)


def test_what_a_killed_run_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    folder = run_at(tmp_path).path
    (folder / ".flash-abc").mkdir()
    (folder / ".flash-abc" / "draft").write_text("half")
    (folder / ".flash-settings.json").write_text("{")
    RunFolder(tmp_path, "run", SETTINGS, first=False)
    assert len(list(folder.glob(".flash-*"))) == 2
    run_at(tmp_path)
    assert not list(folder.glob(".flash-*"))


def test_the_newest_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    run = run_at(tmp_path)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)):
        best = min(loss, 1.0 if step > 1 else loss)
        run.write(
            Checkpoint(Progress(step=step, loss=loss, best=best), {"w": torch.ones(1)}, {"s": torch.ones(1)}),
            2,
        )
    assert run.checkpoints() == [5, 4, 2]
    assert run.best() == 2


def test_a_run_goes_on_only_with_its_own_settings(tmp_path: Path) -> None:
    run_at(tmp_path)
    with pytest.raises(ValueError, match=r'settings \(clips: \["a", "b"\] then, \["a"\] now\): give another'):
        RunFolder(tmp_path, "run", SETTINGS | {"clips": ["a"]})
    with pytest.raises(ValueError, match="tau: null then, 90 now"):
        RunFolder(tmp_path, "run", SETTINGS | {"tau": 90})


def test_the_run_of_another_kind_of_training_is_told_as_such(tmp_path: Path) -> None:
    action = SETTINGS | {"base": "", "method": {}, "motion_module": "", "pool": {}, "text_drop": 0.1}
    decoder = SETTINGS | {"vae": "", "decoder": {}, "distortion": {}, "size": 64}
    RunFolder(tmp_path, "run", action)
    with pytest.raises(ValueError, match="The run 'run' is of another kind of training: give another name"):
        RunFolder(tmp_path, "run", decoder)
    with pytest.raises(ValueError, match="exam: null then"):  # a newer version has more fields
        RunFolder(tmp_path, "run", action | {"exam": {}, "start": None, "size": 64, "frames": 8})


@pytest.mark.parametrize("name", ["../away", "/away", "", ".", "a/b", ".hidden", "a\nb"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be letters, digits"):
        RunFolder(tmp_path, name, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_rows_after_the_checkpoint_and_a_row_cut_short_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    path.write_text("step,seconds,loss\n1,0.1,3\n2,0.2,2\n3,0.3,1\n4,0.")
    LossTable(path, 2).close()
    assert path.read_text() == "step,seconds,loss\n1,0.1,3\n2,0.2,2\n"

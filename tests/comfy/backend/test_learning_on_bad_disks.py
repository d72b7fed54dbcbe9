"""Learn Action where nothing can be written, or no more: one sentence, and what was learned is not lost."""

import shutil
from dataclasses import replace

import pytest
import torch

from flash_pack.flash_modules.backends.comfy.sd15.train.learn import learn_action
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.files.whole import NotWritten
from flash_pack.tests.comfy.backend.test_learn_action import OPTIONS, same, tensors_of
from flash_pack.tests.comfy.backend.test_learn_action import folders as folders
from flash_pack.tests.comfy.backend.test_learn_action import lesson as lesson
from flash_pack.tests.comfy.backend.test_learn_action import no_model as no_model
from flash_pack.tests.disks import mounted

FULL = "could not be written .*No space left on device.*: make room on its disk, and try again"


def fill(folder, spare: int) -> None:
    """Leave so many bytes on the folder's disk."""
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - spare))


def test_a_disk_that_is_full_in_the_middle_keeps_the_checkpoint_before(lesson, folders):
    often = replace(lesson, options=replace(OPTIONS, save_steps=1))
    learn_action(replace(often, run_name="whole"))
    whole, _ = read_tensors(folders / "flash_actions" / "whole.safetensors")
    with mounted(folders / "flash_runs", "-t", "tmpfs", "-o", "size=64m", "tmpfs") as disk:
        learn_action(replace(often, steps=1))
        fill(disk, 2**20)
        with pytest.raises(NotWritten, match=f"checkpoint-2.* {FULL}"):
            learn_action(often)
        assert [path.name for path in (disk / "turn").glob("checkpoint-*")] == ["checkpoint-1"]
        (disk / "filler").unlink()
        learn_action(often)
        assert same(tensors_of(folders), whole)


def test_a_full_disk_of_actions_costs_nothing_but_another_run(lesson, folders):
    """The run has its last checkpoint; queued again it writes the action without a step."""
    with mounted(folders / "flash_actions", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as disk:
        fill(disk, 2**16)
        with pytest.raises(NotWritten, match=f"turn.safetensors {FULL}"):
            learn_action(lesson)
        assert [path.name for path in disk.iterdir()] == ["filler"]
        table = (folders / "flash_runs" / "turn" / "loss.csv").read_text()
        (disk / "filler").unlink()
        learned = learn_action(lesson)
        assert (disk / "turn.safetensors").is_file()
        assert (folders / "flash_runs" / "turn" / "loss.csv").read_text() == table
        assert "Learned 3 of 3 steps" in learned.report.text


def test_a_full_disk_of_samples_keeps_what_was_learned(lesson, folders):
    shown = replace(lesson, image=torch.rand(1, 64, 64, 3))
    with mounted(folders / "output", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        fill(disk, 0)
        with pytest.raises(NotWritten, match=f"sample-000002.webp {FULL}"):
            learn_action(shown)
        run = folders / "flash_runs" / "turn"
        assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-2"]
        (disk / "filler").unlink()
        assert "Learned 3 of 3 steps" in learn_action(shown).report.text


@pytest.mark.parametrize("name", ["flash_runs", "flash_actions", "output"])
def test_a_folder_that_may_not_be_written_is_told_before_anything_is_loaded(lesson, folders, no_model, name):
    no_model()
    with mounted(folders / name, "-t", "tmpfs", "-o", "ro", "tmpfs") as disk:
        with pytest.raises(ValueError, match=f"Nothing can be written into {disk}"):
            learn_action(replace(lesson, image=torch.rand(1, 64, 64, 3)))
        assert not [path for path in disk.iterdir() if path.name != "flash"]

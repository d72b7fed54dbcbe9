"""The memory that training an action takes, and the settings that need less."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.needs import frugal_settings, training_memory
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.small_clips import write_folder
from flash_pack.tests.core.tiny_host import TinyHost

Make = Callable[..., ActionTraining[TinyHost]]


@pytest.fixture
def training(tmp_path: Path) -> Make:
    write_folder(tmp_path / "jump" / "a", 2)
    clips = find_clips([tmp_path / "jump"]).used

    def make(
        size: int, checkpointing: str = "none", host: TinyHost | None = None
    ) -> ActionTraining[TinyHost]:
        config = ActionTrainingConfig(
            method=MethodConfig(augment=AugmentConfig(size=size)), checkpointing=checkpointing
        )
        return ActionTraining(host or TinyHost(), clips, config)

    return make


def test_the_settings_come_first_then_stronger_checkpointing_then_smaller_sizes(training: Make) -> None:
    assert list(frugal_settings(training(512))) == [
        *((512, "none"), (512, "motion"), (512, "all")),
        *((384, "none"), (384, "motion"), (384, "all")),
        *((256, "none"), (256, "motion"), (256, "all")),
    ]


def test_checkpointing_never_gets_weaker_and_sizes_never_larger(training: Make) -> None:
    assert list(frugal_settings(training(384, "motion"))) == [
        *((384, "motion"), (384, "all"), (256, "motion"), (256, "all")),
    ]
    assert list(frugal_settings(training(64, "all"))) == [(64, "all")]


def test_memory_is_that_of_weights_averages_and_a_step(training: Make) -> None:
    made = training(64)
    averages = 2 * 2 * 3 * 4  # of two weights of three numbers of four bytes
    assert training_memory(made) == 1000 + averages + made.cost().peak_bytes
    assert training_memory(made, 128, "all") == 1000 + averages + made.cost(128, "all").peak_bytes
    assert training_memory(made, 128) > training_memory(made)


def test_a_cost_is_counted_once(training: Make) -> None:
    host = TinyHost()
    made = training(64, host=host)
    once = made.cost(), made.cost(128), made.cost(checkpointing="all")
    calls = len(host.calls)
    assert once == (made.cost(64, "none"), made.cost(128, "none"), made.cost(64, "all"))
    assert len(host.calls) == calls == 3


def test_where_much_is_learned_the_optimizers_step_is_the_peak(training: Make) -> None:
    host = TinyHost()
    made = training(64, host=host)
    host.weights["unused"] = nn.Parameter(host.weights["keep"].new_zeros(10**6))
    learning = 4 * (6 + 10**6)
    assert made.cost().peak_bytes < 2 * learning
    assert training_memory(made) == 1000 + 2 * learning + 2 * learning

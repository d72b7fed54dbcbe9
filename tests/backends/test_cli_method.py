"""Every choice of the method is reached from the command line, and without a word it is the paper's."""

from pathlib import Path

import pytest

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTrainingConfig
from flash_pack.flash_modules.flash.training.exam import ExamConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.noise_law import TimestepConfig


class Asked(Exception):
    """What the command would have trained."""

    def __init__(self, config: ActionTrainingConfig) -> None:
        self.config = config


@pytest.fixture(autouse=True)
def stop_at_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is made before a model is looked for."""
    made = cli.train._config

    def stop(*args: object) -> None:
        raise Asked(made(*args))

    monkeypatch.setattr(cli.train, "_config", stop)


def asked(tmp_path: Path, *flags: str) -> ActionTrainingConfig:
    words = ["train", "--base", "b", "--motion", "m", "--clips", "c", "--out", "o", "--runs", str(tmp_path)]
    with pytest.raises(Asked) as found:
        cli.main([*words, *flags])
    return found.value.config


def test_without_a_word_it_is_the_papers(tmp_path: Path) -> None:
    assert asked(tmp_path) == ActionTrainingConfig(
        exam=ExamConfig()
    )  # the paper has none, and it changes no step


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ("--align-at module", {"after_attention": False}),
        ("--align-at attention", {}),
        ("--align-frames later", {"exclude_first": True}),
        ("--align-frames all", {}),
        ("--align-channels beyond-still", {"relative_to_still": True}),
        ("--align-channels moving", {}),
        ("--first-frame-keys", {"first_frame_only": True}),
        ("--detach", {"detach_source": True}),
        ("--tau 80 --p 0.25", {"tau": 80.0, "p": 0.25}),
    ],
)
def test_choices_of_alignment(tmp_path: Path, flags: str, changes: dict[str, object]) -> None:
    method = asked(tmp_path, *flags.split()).method
    assert method == MethodConfig(alignment=AlignmentConfig(**changes))


def test_choices_of_noise_timesteps_and_captions(tmp_path: Path) -> None:
    config = asked(tmp_path, "--noise", "shared", "--alpha", "0.2", "--text-drop", "0.3", "--size", "96")
    method = MethodConfig(
        shared_noise=True, timesteps=TimestepConfig(alpha=0.2), augment=AugmentConfig(size=96)
    )
    assert config == ActionTrainingConfig(method=method, text_drop=0.3, exam=ExamConfig())

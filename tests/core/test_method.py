"""The method's settings, and the variants of the paper's ablation."""

import pytest

from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig
from flash_pack.flash_modules.flash.sampling import SamplerConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTrainingConfig
from flash_pack.flash_modules.flash.training.method import TRAINABLE, VARIANTS, MethodConfig, is_trained


def test_variants_are_those_of_table_2() -> None:
    def parts(method: MethodConfig) -> tuple[bool, bool, bool]:
        """Strong augmentation, motion features, correspondence."""
        return method.twins, method.alignment.tau < 100, method.alignment.p > 0

    assert {number: parts(method) for number, method in VARIANTS.items()} == {
        1: (False, False, False),
        2: (True, False, False),
        3: (True, True, False),
        4: (True, False, True),
        5: (True, True, True),
    }
    assert VARIANTS[5] == MethodConfig()
    assert (VARIANTS[5].alignment.tau, VARIANTS[5].alignment.p) == (90, 0.5)
    assert (VARIANTS[3].alignment.tau, VARIANTS[4].alignment.p) == (90, 0.5)


def test_numbers_that_the_paper_gives_are_the_defaults() -> None:
    """Its rate and steps (A3.2), 25 steps of DDIM and its guidance; dropped captions are AnimateDiff's."""
    config = ActionTrainingConfig()
    assert (config.loop.learning_rate, config.loop.steps, config.text_drop) == (5e-5, 20_000, 0.1)
    assert (SamplerConfig().steps, SamplerConfig().cfg) == (25, 7.5)
    assert (config.method.augment.size, config.method.timesteps.alpha) == (512, 0.5)


def test_alignment_without_twins_is_refused() -> None:
    with pytest.raises(ValueError, match="Without twins nothing can be aligned: set `tau` to 100"):
        MethodConfig(twins=False, alignment=AlignmentConfig(p=0.0))
    with pytest.raises(ValueError, match="Without twins nothing can be aligned"):
        MethodConfig(twins=False, alignment=AlignmentConfig(tau=100.0))


def test_another_trainable_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`trainable` must be attention or motion_module, but it is 'lora'"):
        MethodConfig(trainable="lora")
    assert TRAINABLE == ("attention", "motion_module")


def test_names_of_trained_motion_weights(motion_tensors: object) -> None:
    assert callable(motion_tensors)
    names = [name for name in motion_tensors(24) if "pos_encoder" not in name]
    assert all(is_trained(name, "motion_module") for name in names)
    chosen = {name for name in names if is_trained(name, "attention")}
    assert chosen == {name for name in names if ".attention_blocks." in name}
    assert len(chosen) == 20 * 2 * 5
    assert not is_trained("x.attention_blocks.0.pos_encoder.pe", "attention")

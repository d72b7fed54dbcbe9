"""The method in a run's settings, and runs that were begun when defaults were others."""

from dataclasses import replace
from typing import Any

import pytest

from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig
from flash_pack.flash_modules.flash.training.method import VARIANTS, MethodConfig
from flash_pack.flash_modules.flash.training.method_settings import (
    as_begun,
    method_settings,
    run_method_settings,
)

OLD: dict[str, Any] = {"augment": {"size": 96}, "alignment": {"exclude_first": True}}
NOW = MethodConfig(augment=AugmentConfig(size=96))


def test_what_came_later_is_told_where_it_is_used() -> None:
    told = method_settings(MethodConfig())
    assert "shared_noise" not in told
    assert "relative_to_still" not in told["alignment"]
    assert "kernels_of" not in told["augment"]
    used = MethodConfig(shared_noise=True, alignment=AlignmentConfig(relative_to_still=True))
    told = method_settings(replace(used, augment=AugmentConfig(size=96)))
    assert told["shared_noise"] is told["alignment"]["relative_to_still"] is True
    assert told["augment"]["kernels_of"] == 512


def test_each_method_has_settings_of_its_own() -> None:
    aligned = [{"exclude_first": True}, {"relative_to_still": True}, {"after_attention": False}]
    methods = [
        *VARIANTS.values(),
        MethodConfig(shared_noise=True),
        *(MethodConfig(alignment=AlignmentConfig(**changes)) for changes in aligned),
        NOW,
        MethodConfig(augment=AugmentConfig(size=96, kernels_of=96)),
    ]
    told = [run_method_settings(method) for method in methods]
    assert all(one not in told[:i] for i, one in enumerate(told))


def test_an_old_run_keeps_its_frames_and_its_blur() -> None:
    begun = as_begun(NOW, OLD, keep_frames=False)
    assert begun.alignment == replace(NOW.alignment, exclude_first=True)
    assert begun.augment == AugmentConfig(size=96, kernels_of=96)
    assert replace(begun, alignment=NOW.alignment, augment=NOW.augment) == NOW


def test_frames_that_the_user_gives_stay() -> None:
    assert as_begun(NOW, OLD, keep_frames=True).alignment == NOW.alignment


def test_a_run_of_today_is_what_it_was() -> None:
    for method in (NOW, MethodConfig()):
        assert as_begun(method, run_method_settings(method), keep_frames=False) == method


@pytest.mark.parametrize("then", [None, 3, {}, {"augment": None, "alignment": []}, {"alignment": {"p": 1}}])
def test_settings_that_say_nothing_of_it_change_nothing(then: Any) -> None:
    assert as_begun(NOW, then, keep_frames=False) == NOW

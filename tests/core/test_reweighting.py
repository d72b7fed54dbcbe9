"""The early boost: the paper's curve, what may be set, and what two actions add together."""

import math
from itertools import pairwise

import pytest
import torch

from flash_pack.flash_modules.flexiact.action_file import TransferAction
from flash_pack.flash_modules.flexiact.performance import (
    Performance,
    joined_tokens,
    key_biases,
    performed,
)
from flash_pack.flash_modules.flexiact.reweighting import PAPER, RELEASED, EarlyBoost
from flash_pack.flash_modules.flexiact.sampling import dpm_steps

AT_50_STEPS = {799: 0.9998, 779: 0.8951, 759: 0.6395, 739: 0.3306, 719: 0.0865}
"""Between the plateaus, from the formula by hand."""


def test_the_papers_curve_at_50_steps() -> None:
    for step in dpm_steps(50):
        wanted = 1.0 if step.timestep >= 800 else AT_50_STEPS.get(step.timestep, 0.0)
        assert PAPER.at(step.timestep) == pytest.approx(wanted, abs=5e-5)
    assert sum(PAPER.at(step.timestep) > 0 for step in dpm_steps(50)) == 15


@pytest.mark.parametrize(
    "boost", [PAPER, EarlyBoost(strength=0.5), EarlyBoost(strength=2, full=900, none=300)]
)
def test_the_curve_has_no_jump(boost: EarlyBoost) -> None:
    """The released code has one at t_l for every alpha but 1."""
    curve = [boost.at(timestep / 10) for timestep in range(10000)]
    assert max(abs(after - before) for before, after in pairwise(curve)) < 0.01
    assert boost.at((boost.full + boost.none) / 2) == pytest.approx(boost.strength / 2)
    assert (boost.at(boost.full), boost.at(boost.none)) == (boost.strength, 0)


def test_full_and_none_may_be_one_timestep() -> None:
    switch = EarlyBoost(full=700, none=700)
    assert [switch.at(timestep) for timestep in (699, 700, 701)] == [0, 1, 1]


def test_released_adds_nothing() -> None:
    assert all(RELEASED.at(timestep) == 0 for timestep in range(1000))


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"early boost is .* must be 0"):
        EarlyBoost(strength=strength)
    with pytest.raises(ValueError, match=r"strength of the action 'a' is .* must be 0"):
        Performance(action=_action("a", 2), strength=strength)


@pytest.mark.parametrize(("full", "none"), [(700, 800), (800, -1), (1001, 700)])
def test_limits_that_cannot_be_are_refused(full: int, none: int) -> None:
    with pytest.raises(ValueError, match=f"full from timestep {full} up and ends at {none}"):
        EarlyBoost(full=full, none=none)


def _action(name: str, tokens: int, layers: int = 3) -> TransferAction:
    return TransferAction(name=name, tokens_LMC=torch.randn(layers, tokens, 4))


def test_two_actions_join_and_keep_their_own_biases() -> None:
    first = Performance(action=_action("a", 2), strength=0.5, boost=RELEASED)
    second = Performance(action=_action("b", 3), boost=EarlyBoost(strength=0.25))
    tokens_MC = joined_tokens([first, second], layer=1)
    assert torch.equal(tokens_MC[:2], first.action.tokens_LMC[1])
    assert torch.equal(tokens_MC[2:], second.action.tokens_LMC[1])
    wanted = torch.tensor([[math.log(0.5), 0.0]] * 2 + [[0.0, 0.25]] * 3)
    biases_M2 = key_biases([first, second], 999)
    assert biases_M2 is not None
    torch.testing.assert_close(biases_M2, wanted)


def test_nothing_is_added_where_nothing_is_asked_for() -> None:
    as_learned = Performance(action=_action("a", 2))
    assert key_biases([as_learned], 700) is None
    assert key_biases([as_learned], 701) is not None
    assert key_biases([Performance(action=_action("a", 2), boost=RELEASED)], 999) is None


def test_strength_0_is_no_action() -> None:
    off, on = Performance(action=_action("a", 2), strength=0), Performance(action=_action("b", 2))
    assert performed([off, on]) == [on]

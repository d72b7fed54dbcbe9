"""Timesteps, noised latents and targets of both kinds of base."""

import math

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.method_settings import method_settings
from flash_pack.flash_modules.flash.training.noise_law import (
    LAWS,
    DiffusionNoise,
    FlowNoise,
    TimestepConfig,
    timestep_cdf,
)

P, F, C, H, W = 3, 4, 2, 3, 5
LAW = DiffusionNoise("epsilon")
SHIFT = 8.0


def drawn(count: int, alpha: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([LAW.draw(TimestepConfig(alpha=alpha), generator) for _ in range(count)])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_distribution_function_is_the_laws_integral(alpha: float) -> None:
    cdf_T = timestep_cdf(alpha)
    total, parts = 0.0, 50
    for t in range(1000):
        for i in range(parts):  # midpoints
            total += (1 - alpha * math.cos(math.pi * (t + (i + 0.5) / parts) / 1000)) / (1000 * parts)
        assert float(cdf_T[t]) == pytest.approx(total, abs=1e-9)
    assert float(cdf_T[-1]) == pytest.approx(1.0, abs=1e-12)


def test_noisier_timesteps_are_more_often_drawn() -> None:
    timesteps = drawn(12_000)
    assert 0 <= timesteps.min() < 10
    assert 995 < timesteps.max() < 1000
    assert float((timesteps >= 500).double().mean()) == pytest.approx(0.659, abs=0.013)
    assert float(timesteps.double().mean()) == pytest.approx(601, abs=8)
    chances_T = timestep_cdf(0.5).diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert float(chances_T[-1] / chances_T[0]) == pytest.approx(3.0, abs=1e-4)
    for low in range(0, 1000, 100):
        expected = float(chances_T[low : low + 100].sum())
        found = float(((timesteps >= low) & (timesteps < low + 100)).double().mean())
        assert found == pytest.approx(expected, abs=0.01)


def test_alpha_0_draws_all_timesteps_alike() -> None:
    timesteps = drawn(3_000, alpha=0.0)
    assert float((timesteps >= 500).double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("uniform", [0.0, 1e-9, 0.2, 0.5, 0.9, 1 - 2**-53])
def test_timestep_inverts_the_distribution_function(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(uniform, dtype=torch.float64))
    found = LAW.draw(TimestepConfig(), torch.Generator())
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        below = middle - 0.5 / math.pi * math.sin(math.pi * middle) <= uniform
        low, high = (middle, high) if below else (low, middle)
    assert found == min(math.floor(1000 * low), 999)


@pytest.mark.parametrize(("uniform", "timestep"), [(0.0, 0), (0.25, 250), (0.5, 500)])
def test_each_timestep_begins_where_the_one_before_ends(
    monkeypatch: pytest.MonkeyPatch, uniform: float, timestep: int
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(uniform, dtype=torch.float64))
    assert LAW.draw(TimestepConfig(alpha=0.0), torch.Generator()) == timestep


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"`alpha` must lie between 0 and 1, but it is"):
        TimestepConfig(alpha=alpha)


def slow_alphas() -> list[float]:
    """The products of 1 - beta: AnimateDiff's betas grow linearly from 0.00085 to 0.012."""
    alphas, product = [], 1.0
    for t in range(1000):
        product *= 1 - (0.00085 + (0.012 - 0.00085) * t / 999)
        alphas.append(product)
    return alphas


def test_noised_latents_equal_a_loop_and_frame_0_is_clean() -> None:
    latents, noise = torch.randn(2, P, F, C, H, W, dtype=torch.float64)
    timesteps = [0, 400, 999]
    found = LAW.noised(latents, noise, torch.tensor(timesteps))
    alphas = slow_alphas()
    for p, t in enumerate(timesteps):
        assert torch.equal(found[p, 0], latents[p, 0])
        for f in range(1, F):
            expected = alphas[t] ** 0.5 * latents[p, f] + (1 - alphas[t]) ** 0.5 * noise[p, f]
            torch.testing.assert_close(found[p, f], expected, rtol=1e-12, atol=1e-12)


def flow_drawn(law: str, count: int = 12_000, alpha: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    config = TimestepConfig(alpha=alpha, law=law)  # type: ignore[arg-type]
    return torch.tensor([FlowNoise(SHIFT).draw(config, generator) for _ in range(count)], dtype=torch.float64)


def part_below(u: float) -> float:
    """The timestep of flow matching that comes from `u`: the sampler's own shift, in its other form."""
    return 1000 / (1 + (1 / u - 1) / SHIFT)


@pytest.mark.parametrize("part", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_shifted_timesteps_are_the_samplers(part: float) -> None:
    drawn_B = flow_drawn("shifted")
    assert float((drawn_B < part_below(part)).double().mean()) == pytest.approx(part, abs=0.013)
    assert drawn_B.min() > 0
    assert drawn_B.max() <= 1000


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75])
def test_high_noise_is_the_first_half_of_the_samplers_steps(part: float) -> None:
    drawn_B = flow_drawn("high noise")
    assert part_below(0.5) == pytest.approx(888.889, abs=1e-3)
    assert drawn_B.min() >= part_below(0.5) - 1e-9
    assert float((drawn_B < part_below((1 + part) / 2)).double().mean()) == pytest.approx(part, abs=0.013)


def test_the_timestep_without_noise_is_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform numbers can be 0, but not 1; at t = 0 there would be nothing to learn."""
    for uniform, expected in ((0.0, 1000.0), (1 - 2**-53, SHIFT * 1000 * 2**-53)):
        monkeypatch.setattr(torch, "rand", lambda *_, u=uniform, **__: torch.tensor(u, dtype=torch.float64))
        found = FlowNoise(SHIFT).draw(TimestepConfig(law="shifted"), torch.Generator())
        assert found == pytest.approx(expected)


def test_the_papers_law_takes_no_notice_of_the_shift() -> None:
    drawn_B = flow_drawn("cosine")
    assert torch.equal(drawn_B, drawn(12_000).double() + 1)
    assert drawn_B.max() <= 1000


@pytest.mark.parametrize("law", LAWS)
def test_every_law_takes_one_number_so_that_what_is_drawn_next_stays(law: str) -> None:
    after = []
    for of, config in ((FlowNoise(3.0), TimestepConfig(law=law)), (LAW, TimestepConfig())):  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(3)
        of.draw(config, generator)
        after.append(torch.rand(2, generator=generator))
    assert torch.equal(*after)


def test_flow_noise_equals_a_loop_and_frame_0_is_clean() -> None:
    latents, noise = torch.randn(2, P, F, C, H, W, dtype=torch.float64)
    timesteps = [0.25, 400.5, 1000.0]
    law = FlowNoise(SHIFT)
    found = law.noised(latents, noise, torch.tensor(timesteps))
    target = law.target(latents, noise, torch.tensor(timesteps))
    for p, t in enumerate(timesteps):
        assert torch.equal(found[p, 0], latents[p, 0])
        for f in range(1, F):
            expected = latents[p, f] + t / 1000 * (noise[p, f] - latents[p, f])
            torch.testing.assert_close(found[p, f], expected, rtol=1e-12, atol=1e-12)
            # along the velocity to clean latents
            clean = found[p, f] - t / 1000 * target[p, f]
            torch.testing.assert_close(clean, latents[p, f], rtol=1e-12, atol=1e-12)


def test_laws_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="'shifted' is one of flow matching: take 'cosine'"):
        LAW.draw(TimestepConfig(law="shifted"), torch.Generator())
    with pytest.raises(ValueError, match="`law` must be one of cosine, shifted, high noise, but it is 'low'"):
        TimestepConfig(law="low")  # type: ignore[arg-type]
    for shift in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`shift` must be a number above 0"):
            FlowNoise(shift)


def test_settings_of_runs_from_before_do_not_change() -> None:
    assert method_settings(MethodConfig())["timesteps"] == {"alpha": 0.5}
    shifted = MethodConfig(timesteps=TimestepConfig(law="shifted"))
    assert method_settings(shifted)["timesteps"] == {"alpha": 0.5, "law": "shifted"}

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.noise_schedule import PREDICTIONS, Prediction
from flash_pack.flash_modules.flash.motion_alignment import VideoCall
from flash_pack.flash_modules.flash.training.loss import (
    TimestepConfig,
    add_noise,
    denoising_losses,
    draw_noise,
    draw_timestep,
    timestep_cdf,
    total_loss,
)

P, F, C, H, W = 3, 4, 2, 3, 5
M, D = 6, 7
noise_losses = partial(denoising_losses, prediction="epsilon")
CALL = VideoCall(num_pairs=P, swaps_L=torch.tensor([True]))


def drawn(count: int, alpha: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([draw_timestep(TimestepConfig(alpha=alpha), generator) for _ in range(count)])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_distribution_function_is_the_laws_integral(alpha: float) -> None:
    cdf_T = timestep_cdf(TimestepConfig(alpha=alpha))
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
    chances_T = timestep_cdf(TimestepConfig()).diff(prepend=torch.zeros(1, dtype=torch.float64))
    assert float(chances_T[-1] / chances_T[0]) == pytest.approx(3.0, abs=1e-4)
    for low in range(0, 1000, 100):
        expected = float(chances_T[low : low + 100].sum())
        found = float(((timesteps >= low) & (timesteps < low + 100)).double().mean())
        assert found == pytest.approx(expected, abs=0.01)


def test_twins_have_noise_of_their_own_or_that_of_their_originals() -> None:
    shape, config = torch.Size((2, 3, C, H, W)), TimestepConfig()
    own, shared = (
        draw_noise(shape, config, torch.Generator().manual_seed(1), shared=shared) for shared in (False, True)
    )
    assert own.timestep == shared.timestep
    assert torch.equal(shared.noise_BFCHW[0], own.noise_BFCHW[0])
    assert torch.equal(shared.noise_BFCHW[1], own.noise_BFCHW[0])
    assert not torch.allclose(own.noise_BFCHW[1], own.noise_BFCHW[0], atol=0.1)


def test_alpha_0_draws_all_timesteps_alike() -> None:
    timesteps = drawn(3_000, alpha=0.0)
    assert float((timesteps >= 500).double().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("uniform", [0.0, 1e-9, 0.2, 0.5, 0.9, 1 - 2**-53])
def test_timestep_inverts_the_distribution_function(monkeypatch: pytest.MonkeyPatch, uniform: float) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(uniform, dtype=torch.float64))
    found = draw_timestep(TimestepConfig(), torch.Generator())
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
    assert draw_timestep(TimestepConfig(alpha=0.0), torch.Generator()) == timestep


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"`alpha` must lie between 0 and 1, but it is"):
        TimestepConfig(alpha=alpha)


def test_videos_of_a_clip_have_one_timestep_and_noise_of_their_own() -> None:
    one, again = (
        draw_noise(torch.Size([2, F, C, 40, 40]), TimestepConfig(), torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert one.timestep == again.timestep
    assert torch.equal(one.noise_BFCHW, again.noise_BFCHW)
    assert one.noise_BFCHW.flatten(1).corrcoef()[0, 1].abs() < 0.03
    assert one.noise_BFCHW.mean().abs() < 0.02
    assert one.noise_BFCHW.std() == pytest.approx(1.0, abs=0.03)


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
    found = add_noise(latents, noise, torch.tensor(timesteps))
    alphas = slow_alphas()
    for p, t in enumerate(timesteps):
        assert torch.equal(found[p, 0], latents[p, 0])
        for f in range(1, F):
            expected = alphas[t] ** 0.5 * latents[p, f] + (1 - alphas[t]) ** 0.5 * noise[p, f]
            torch.testing.assert_close(found[p, f], expected, rtol=1e-12, atol=1e-12)


class Answer:
    """A U-Net that always answers the same, and keeps what it was shown."""

    def __init__(self, answer_BFCHW: Tensor) -> None:
        self.answer_BFCHW = answer_BFCHW

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, call: VideoCall | None) -> Tensor:
        self.shown = (latents, timestep, text, call)
        return self.answer_BFCHW


def batch(videos: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Answer]:
    latents, noise, eps = torch.randn(3, videos * P, F, C, H, W, dtype=torch.float64)
    text_PMC = torch.randn(P, M, D, dtype=torch.float64)
    return latents, noise, torch.tensor([999, 0, 300]), text_PMC, Answer(eps.requires_grad_())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("videos", [1, 2])
def test_loss_equals_a_loop_without_frame_0(videos: int, prediction: Prediction) -> None:
    latents, noise, timesteps, text, predict = batch(videos)
    losses_VP = denoising_losses(
        predict, latents, noise, timesteps, text, None, prediction=prediction
    ).detach()
    wanted = noise.clone()
    if prediction == "v_prediction":
        for i, timestep in enumerate(timesteps.tolist() * videos):
            alpha = slow_alphas()[timestep]
            wanted[i] = alpha**0.5 * noise[i] - (1 - alpha) ** 0.5 * latents[i]
    errors = predict.answer_BFCHW.detach() - wanted
    assert losses_VP.shape == (videos, P)
    total = 0.0
    for p in range(P):
        for v in range(videos):  # [originals, twins]
            squares = [
                float(errors[v * P + p, f, c, y, x]) ** 2
                for f in range(1, F)
                for c in range(C)
                for y in range(H)
                for x in range(W)
            ]
            assert float(losses_VP[v, p]) == pytest.approx(sum(squares) / len(squares), rel=1e-12)
            total += sum(squares) / len(squares) / P
    assert float(total_loss(losses_VP)) == pytest.approx(total, rel=1e-12)


def test_gradient_of_frame_0s_prediction_is_zero() -> None:
    latents, noise, timesteps, text, predict = batch()
    total_loss(noise_losses(predict, latents, noise, timesteps, text, CALL)).backward()
    assert predict.answer_BFCHW.grad is not None
    assert not predict.answer_BFCHW.grad[:, 0].any()
    assert (predict.answer_BFCHW.grad[:, 1:] != 0).all()


def test_both_videos_of_a_clip_are_shown_at_its_timestep_with_its_prompt() -> None:
    latents, noise, timesteps, text, predict = batch()
    noise_losses(predict, latents, noise, timesteps, text, CALL)
    shown, timestep_B, text_BMC, call = predict.shown
    assert timestep_B.tolist() == [999, 0, 300, 999, 0, 300]
    assert torch.equal(text_BMC, torch.cat([text, text]))
    assert torch.equal(shown, add_noise(latents, noise, timestep_B))
    assert torch.equal(shown[:, 0], latents[:, 0])
    assert call is CALL


def test_loss_of_a_half_precision_prediction_is_in_fp32() -> None:
    latents, noise, timesteps, text, predict = batch()
    predict.answer_BFCHW = predict.answer_BFCHW.detach().bfloat16()
    found = noise_losses(predict, latents.float(), noise.float(), timesteps, text, None)
    assert found.dtype == torch.float32

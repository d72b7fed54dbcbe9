from functools import partial

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.noise_schedule import PREDICTIONS, Prediction
from flash_pack.flash_modules.flash.motion_alignment import VideoCall
from flash_pack.flash_modules.flash.training.loss import denoising_losses, draw_noise, total_loss
from flash_pack.flash_modules.flash.training.noise_law import DiffusionNoise, FlowNoise, TimestepConfig
from flash_pack.tests.core.test_noise_law import slow_alphas

P, F, C, H, W = 3, 4, 2, 3, 5
M, D = 6, 7
LAW = DiffusionNoise("epsilon")
noise_losses = partial(denoising_losses, law=LAW)
CALL = VideoCall(num_pairs=P, swaps_L=torch.tensor([True]))


def test_twins_have_noise_of_their_own_or_that_of_their_originals() -> None:
    shape, config = torch.Size((2, 3, C, H, W)), TimestepConfig()
    own, shared = (
        draw_noise(shape, LAW, config, torch.Generator().manual_seed(1), shared=shared)
        for shared in (False, True)
    )
    assert own.timestep == shared.timestep
    assert torch.equal(shared.noise_BFCHW[0], own.noise_BFCHW[0])
    assert torch.equal(shared.noise_BFCHW[1], own.noise_BFCHW[0])
    assert not torch.allclose(own.noise_BFCHW[1], own.noise_BFCHW[0], atol=0.1)


def test_videos_of_a_clip_have_one_timestep_and_noise_of_their_own() -> None:
    one, again = (
        draw_noise(torch.Size([2, F, C, 40, 40]), LAW, TimestepConfig(), torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert one.timestep == again.timestep
    assert torch.equal(one.noise_BFCHW, again.noise_BFCHW)
    assert one.noise_BFCHW.flatten(1).corrcoef()[0, 1].abs() < 0.03
    assert one.noise_BFCHW.mean().abs() < 0.02
    assert one.noise_BFCHW.std() == pytest.approx(1.0, abs=0.03)


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
        predict, latents, noise, timesteps, text, None, law=DiffusionNoise(prediction)
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
    assert torch.equal(shown, LAW.noised(latents, noise, timestep_B))
    assert torch.equal(shown[:, 0], latents[:, 0])
    assert call is CALL


def test_loss_of_a_half_precision_prediction_is_in_fp32() -> None:
    latents, noise, timesteps, text, predict = batch()
    predict.answer_BFCHW = predict.answer_BFCHW.detach().bfloat16()
    found = noise_losses(predict, latents.float(), noise.float(), timesteps, text, None)
    assert found.dtype == torch.float32


def test_loss_of_flow_matching_equals_a_loop_without_frame_0() -> None:
    latents, noise, _, text, predict = batch()
    timesteps = torch.tensor([1000.0, 0.5, 300.25])
    law = FlowNoise(8.0)
    losses_VP = denoising_losses(predict, latents, noise, timesteps, text, CALL, law=law).detach()
    shown, timestep_B, *_ = predict.shown
    assert timestep_B.tolist() == [1000.0, 0.5, 300.25] * 2
    assert torch.equal(shown, law.noised(latents, noise, timestep_B))
    errors = predict.answer_BFCHW.detach() - (noise - latents)
    wanted_VP = errors[:, 1:].square().mean(dim=(1, 2, 3, 4)).reshape(2, P)
    torch.testing.assert_close(losses_VP, wanted_VP, rtol=1e-12, atol=0)

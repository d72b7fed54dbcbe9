"""The DDIM run: its start, its clean first frame, guidance and AdaIN, for any model that predicts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.animatediff.noise_schedule import PREDICTIONS, Prediction
from flash_pack.flash_modules.flash.adain import AdaINConfig, adain
from flash_pack.flash_modules.flash.sampling import (
    Predict,
    SamplerConfig,
    denoise,
    draw_noise,
    ksampler_start,
    sample_video,
)

F, C, H, W, M = 3, 4, 6, 8, 7
OFF = AdaINConfig(strength=0.0)


def noise_of(latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor) -> Tensor:
    """What a model that knows frames, timestep and prompt might take for noise."""
    return torch.tanh(
        latents_BFCHW + latents_BFCHW.roll(1, dims=1) / 2 + text_embeds.mean() + timestep_B / 1000
    )


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


REFERENCE = random(1, C, H, W, seed=1)
PROMPT, NEGATIVE = random(1, 5, M, seed=2), random(1, 5, M, seed=3)


def sample(
    predict: Predict,
    config: SamplerConfig,
    *,
    reference: Tensor = REFERENCE,
    seed: int = 0,
    style: AdaINConfig = OFF,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """A video of a U-Net that predicts noise."""
    return sample_video(
        predict,
        reference,
        PROMPT,
        NEGATIVE,
        prediction="epsilon",
        seed=seed,
        config=config,
        style=style,
        on_step=on_step,
    )


class Recorder:
    """Calls the model, and keeps what it was shown."""

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self.latents: list[Tensor] = []
        self.timesteps: list[int] = []
        self.texts: list[Tensor] = []

    def __call__(self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor) -> Tensor:
        self.latents.append(latents_BFCHW.clone())
        self.timesteps.append(int(timestep_B))
        self.texts.append(text_embeds)
        return self.predict(latents_BFCHW, timestep_B, text_embeds)


class Oracle:
    """Knows the clean video, and what has to be predicted to get there."""

    def __init__(self, video_FCHW: Tensor, prediction: Prediction) -> None:
        self.video_FCHW, self.prediction = video_FCHW, prediction

    def __call__(self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor) -> Tensor:
        alpha = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0)[timestep_B]
        signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
        eps_BFCHW = (latents_BFCHW - signal * self.video_FCHW) / spread
        if self.prediction == "epsilon":
            return eps_BFCHW
        return signal * eps_BFCHW - spread * self.video_FCHW


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_finds_the_video_that_is_predicted(prediction: Prediction) -> None:
    video = torch.cat([REFERENCE, random(F - 1, C, H, W, seed=5)]).double()
    config = SamplerConfig(num_frames=F, steps=6, cfg=1.0)
    start = random(F, C, H, W, seed=4).double()
    predict = Oracle(video, prediction)
    out = denoise(predict, start, video[:1], PROMPT, NEGATIVE, prediction=prediction, config=config)
    torch.testing.assert_close(out, video, rtol=0, atol=1e-5)


def test_first_frame_is_clean_at_every_step_and_exact_at_the_end() -> None:
    recorder = Recorder(noise_of)
    config = SamplerConfig(num_frames=F, steps=3)
    out = sample(recorder, config, style=AdaINConfig())
    assert len(recorder.latents) == 6
    assert all(torch.equal(latents[0, :1], REFERENCE) for latents in recorder.latents)
    assert torch.equal(out[:1], REFERENCE)
    assert out.shape == (F, C, H, W)


def test_starts_with_the_noise_of_comfyui() -> None:
    recorder = Recorder(noise_of)
    config = SamplerConfig(num_frames=F, steps=4)
    sample(recorder, config, seed=42)
    torch.manual_seed(42)
    noise = torch.randn(F, C, H, W)
    alpha_bar = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0)[751]
    expected = noise * (1 - alpha_bar).sqrt()
    assert torch.allclose(recorder.latents[0][0, 1:], expected[1:].float(), atol=1e-6)


def test_the_start_of_the_ksampler_is_slightly_weaker() -> None:
    noise = draw_noise(torch.Size((F, C, H, W)), seed=0)
    ratio = ksampler_start(noise, num_steps=25).norm() / noise.norm()
    assert float(ratio) == pytest.approx(0.99876, abs=1e-5)
    assert torch.equal(ksampler_start(noise, num_steps=500), noise)  # begins at the last timestep


def test_cfg_1_never_asks_for_the_negative_prompt() -> None:
    recorder = Recorder(noise_of)
    config = SamplerConfig(num_frames=F, steps=3, cfg=1.0)
    sample(recorder, config)
    assert recorder.timesteps == [667, 334, 1]
    assert all(text is PROMPT for text in recorder.texts)


def test_adain_runs_once_after_the_last_step() -> None:
    config = SamplerConfig(num_frames=F, steps=2)
    plain = sample(noise_of, config)
    style = AdaINConfig(strength=0.5)
    styled = sample(noise_of, config, style=style)
    assert torch.equal(styled, adain(plain, style))
    assert not torch.allclose(styled, plain, atol=1e-2)


def test_every_step_is_reported() -> None:
    steps: list[None] = []
    config = SamplerConfig(num_frames=F, steps=3, cfg=1.0)
    sample(noise_of, config, on_step=lambda: steps.append(None))
    assert len(steps) == 3


def test_an_unusable_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="The reference is empty"):
        sample(noise_of, SamplerConfig(), reference=torch.zeros_like(REFERENCE))


def test_settings_that_make_no_video_are_refused() -> None:
    with pytest.raises(ValueError, match="A video needs 2 frames or more"):
        SamplerConfig(num_frames=1)
    with pytest.raises(ValueError, match="`steps` must lie between 1 and 999, but it is 1000"):
        SamplerConfig(steps=1000)


def test_guidance_must_be_a_number() -> None:
    with pytest.raises(ValueError, match="`cfg` must be a number, but it is nan"):
        SamplerConfig(cfg=float("nan"))

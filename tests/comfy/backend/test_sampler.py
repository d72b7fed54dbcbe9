"""FLASH Video Sampler against diffusers' DDIM, and AdaIN."""

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from diffusers import DDIMScheduler


@pytest.fixture
def run(flash, prompts, reference):
    def run(model, adain=0.0, **settings):
        config = flash.sampling.SamplerConfig(num_frames=5, **settings)
        style = flash.adain.AdaINConfig(strength=adain)
        return flash.backend.sample_video(
            model, prompts.positive, prompts.negative, reference, seed=1, config=config, style=style
        )

    return run


@pytest.mark.parametrize("steps", [7, 25])
def test_the_run_equals_diffusers_ddim(
    flash, model, motion, run, make_oracle, animated, prompts, assert_same, steps
):
    for weight in model.model.diffusion_model.out[2].parameters():
        weight.data *= 0.3  # noise of about deviation 1, as trained; more would blow rounding up step by step
    ours = run(flash.backend.add_action(model, motion, None), steps=steps)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type="sample",  # the oracle gives denoised latents
    )
    scheduler.set_timesteps(steps)
    oracle = make_oracle(animated)
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for t in scheduler.timesteps:
        alpha = scheduler.alphas_cumprod[t]
        sigma = ((1 - alpha) / alpha) ** 0.5
        x = latents / alpha**0.5
        cond, uncond = (oracle.denoised(x, sigma, p) for p in (prompts.positive, prompts.negative))
        denoised = uncond + 7.5 * (cond - uncond)
        latents = scheduler.step(denoised, t, oracle.shown(x, sigma) * alpha**0.5).prev_sample
    theirs = torch.cat([oracle.z0, latents[1:]]) / 0.18215
    assert_same(ours, theirs)


@pytest.mark.parametrize("steps", [25, 500])
def test_the_first_step_sees_noise_of_deviation_1(flash, model, motion, run, unet_inputs, monkeypatch, steps):
    monkeypatch.setattr("latent_preview.prepare_callback", lambda *_: stop_after_one_step)
    with pytest.raises(InterruptProcessingException):
        run(flash.backend.add_action(model, motion, None), steps=steps)
    noise = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(unet_inputs[0][0][1:5], noise[1:], rtol=1e-5, atol=1e-5)


def stop_after_one_step(*_):
    raise InterruptProcessingException


def test_the_stock_sampler_starts_a_little_quieter(animated, sample, unet_inputs):
    with pytest.raises(InterruptProcessingException):
        sample(animated, "ddim", "ddim_uniform", steps=25, callback=stop_after_one_step)
    noise = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    ratio = unet_inputs[0][0][1:5] / noise[1:]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.99876), rtol=1e-5, atol=0)


def test_a_schedule_of_fewer_levels_is_refused(flash, model, motion, run):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (lcm,) = ModelSamplingDiscrete().patch(flash.backend.add_action(model, motion, None), "lcm", False)
    with pytest.raises(ValueError, match="noise schedule has 50 levels"):
        run(lcm)


def test_adain_is_applied_at_its_strength(flash, model, motion, run):
    m = flash.backend.add_action(model, motion, None)
    plain, styled = run(m, steps=2), run(m, adain=1.0, steps=2)
    assert torch.equal(styled, flash.adain.adain(plain, flash.adain.AdaINConfig(strength=1.0)))
    assert (styled - plain)[1:].abs().max() > 0.1


def test_a_model_without_motion_is_refused(model, run):
    with pytest.raises(ValueError, match="has no motion: put Apply Action"):
        run(model)

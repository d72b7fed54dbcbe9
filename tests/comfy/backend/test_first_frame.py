"""The clean first frame in real samplers."""

import pytest
import torch
from comfy.samplers import calc_cond_batch
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    BasicScheduler,
    KSamplerSelect,
    RandomNoise,
    SamplerCustomAdvanced,
)
from nodes import KSamplerAdvanced

SAMPLERS = ["ddim", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "uni_pc"]


@pytest.fixture
def bound(flash, model, motion, reference):
    return flash.backend.add_first_frame(flash.backend.add_action(model, motion, None), reference)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_unet_sees_the_clean_picture_at_every_step(bound, sample, unet_inputs, z0, reference, sampler):
    out = sample(bound, sampler, "ddim_uniform" if sampler == "ddim" else "normal", steps=4)
    assert len(unet_inputs) >= 4
    for latents, _ in unet_inputs:
        for chunk in latents.chunk(2):
            torch.testing.assert_close(chunk[:1], z0, rtol=0, atol=1e-6)
            assert (chunk[1:] - z0).abs().amax(dim=(1, 2, 3)).min() > 0.1
    assert torch.equal(out[:1], reference)


def test_a_noise_mask_alone_does_not_show_the_clean_picture(
    flash, model, motion, sample, unet_inputs, z0, reference
):
    animated = flash.backend.add_action(model, motion, None)
    latents = torch.zeros(5, 4, 8, 8)
    latents[:1] = reference
    mask = torch.ones(5, 1, 8, 8)
    mask[:1] = 0
    sample(animated, latents=latents, noise_mask=mask)
    assert (unet_inputs[0][0][:1] - z0).abs().max() > 0.5


def test_the_picture_comes_first_in_either_order_of_nodes(flash, model, motion, sample, bound, reference):
    other = flash.backend.add_action(flash.backend.add_first_frame(model, reference), motion, None)
    assert torch.equal(sample(other), sample(bound))


def test_two_stages_equal_one_run(flash, bound, prompts, reference):
    latent_start = {"samples": torch.cat([reference, torch.zeros(4, 4, 8, 8)])}
    stage = KSamplerAdvanced()

    def run(start, end, add_noise, leftover, latent):
        return stage.sample(
            bound, add_noise, 7, 4, 7.5, "euler", "normal",
            prompts.positive, prompts.negative, latent, start, end, leftover,
        )[0]  # fmt: skip

    whole = run(0, 4, "enable", "disable", latent_start)["samples"]
    first = run(0, 2, "enable", "enable", latent_start)
    second = run(2, 4, "disable", "disable", first)["samples"]
    assert torch.equal(second[:1], reference)
    assert (whole - second).norm() / whole.norm() <= 1e-6


def test_sampler_custom_advanced_keeps_all_frames(flash, bound, prompts, reference):
    guider = BasicGuider.execute(bound, prompts.positive)[0]
    noise = RandomNoise.execute(1)[0]
    sampler = KSamplerSelect.execute("euler")[0]
    sigmas = BasicScheduler.execute(bound, "normal", 3, 1.0)[0]
    latent = {"samples": torch.cat([reference, torch.zeros(4, 4, 8, 8)])}
    out, denoised = SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent).result
    assert torch.equal(out["samples"][:1], reference)
    # Euler ends on its own prediction, so both outputs show the same frames in the same order.
    torch.testing.assert_close(denoised["samples"], out["samples"], rtol=1e-5, atol=1e-5)


def test_previews_show_moving_frames_and_end_in_order(bound, sample, z0):
    shown = []
    sample(bound, steps=3, callback=lambda step, x0, x, total: shown.append(x0.clone()))
    assert len(shown) == 4
    for x0 in shown[:3]:
        assert (x0[:1] - z0).abs().max() > 0.1
    torch.testing.assert_close(shown[3][:1], z0, rtol=0, atol=1e-6)
    assert torch.equal(shown[2].roll(3, dims=0), shown[3])


def test_a_second_pass_keeps_the_picture(bound, sample, unet_inputs, z0, reference):
    """Video to video: denoise below 1, with a mask, from frames that are there already."""
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(10))
    mask = torch.ones(5, 1, 8, 8)
    mask[:, :, :4] = 0
    out = sample(bound, latents=latents, noise_mask=mask, denoise=0.5)
    assert torch.equal(out[:1], reference)
    torch.testing.assert_close(out[1:, :, :4], latents[1:, :, :4], rtol=1e-4, atol=1e-4)
    for shown, _ in unet_inputs:
        torch.testing.assert_close(shown[:1], z0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_half_precision_keeps_the_picture(flash, make_model, motion_path, sample, reference, version):
    motion = flash.backend.load_motion(motion_path, version)

    def animate(model):
        return sample(flash.backend.add_first_frame(flash.backend.add_action(model, motion, None), reference))

    half = animate(make_model(compute=torch.bfloat16))
    assert torch.equal(half[:1], reference)
    whole = animate(make_model())
    assert float((half - whole).norm() / whole.norm()) < 0.1


def test_guidance_that_asks_the_model_again_sees_the_clean_picture(bound, sample, unet_inputs, z0):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    patched = PerturbedAttentionGuidance.execute(bound, 3.0)[0]
    sample(patched)
    assert len(unet_inputs) == 4
    for latents, _ in unet_inputs:
        torch.testing.assert_close(latents[:1], z0, rtol=0, atol=1e-6)


def test_a_question_about_other_latents_sees_the_clean_picture_too(bound, sample, unet_inputs, z0):
    """As Self-Attention Guidance asks about blurred latents."""

    def ask_again(args):
        other = args["input"] * 0.5
        calc_cond_batch(args["model"], [args["cond"]], other, args["sigma"], args["model_options"])
        return args["denoised"]

    bound.set_model_sampler_post_cfg_function(ask_again)
    sample(bound, cfg=1.0)
    assert len(unet_inputs) == 4
    for latents, _ in unet_inputs:
        torch.testing.assert_close(latents[:1], z0, rtol=0, atol=1e-6)


def test_no_guidance_node_moves_the_picture(bound, sample, z0):
    shown = []
    bound.set_model_sampler_post_cfg_function(lambda args: args["denoised"] + 1.0)
    sample(bound, callback=lambda step, x0, x, total: shown.append(x0.clone()))
    torch.testing.assert_close(shown[-1][:1], z0, rtol=0, atol=1e-6)


def test_the_given_model_is_not_changed(flash, model, motion, reference, sample):
    before = sample(model)
    animated = flash.backend.add_action(model, motion, None)
    plain = sample(animated)
    sample(flash.backend.add_first_frame(animated, reference))
    assert torch.equal(sample(animated), plain)
    assert torch.equal(sample(model), before)


@pytest.mark.parametrize(
    ("latent", "sentence"),
    [
        (torch.zeros(1, 4, 8, 8), "The reference is empty"),
        (torch.ones(3, 4, 8, 8), "The reference holds 3 pictures"),
        (torch.full((1, 4, 8, 8), float("nan")), "not finite"),
        (torch.ones(1, 4, 2, 8, 8), "must be one encoded picture"),
        (torch.ones(1, 16, 8, 8), "another kind of VAE: it has 16 channels"),
    ],
)
def test_an_unusable_reference_is_refused(flash, model, latent, sentence):
    with pytest.raises(ValueError, match=sentence):
        flash.backend.add_first_frame(model, latent)


def test_a_video_of_another_size_is_refused(bound, sample):
    with pytest.raises(ValueError, match="first frame is 8 x 8 in latent pixels and the video is 16 x 8"):
        sample(bound, latents=torch.zeros(5, 4, 8, 16))


def test_one_frame_is_refused(bound, sample):
    with pytest.raises(ValueError, match="holds 1 frame"):
        sample(bound, frames=1)

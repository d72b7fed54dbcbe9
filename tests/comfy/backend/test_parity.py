"""ComfyUI's backend and diffusers' backend compute the same function."""

from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from comfy.samplers import ddim_scheduler
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from flash_pack.flash_modules.backends.diffusers import sd15 as diffusers_backend
from flash_pack.tests.backends.small_models import per_frame, randomise
from flash_pack.tests.comfy.backend.two_hosts import diffusers_unet


@dataclass(frozen=True)
class Twin:
    """diffusers' U-Net with the weights of the MODEL, under our diffusers backend."""

    backend: ModuleType
    unet: UNet2DConditionModel


@pytest.fixture
def twin(model) -> Twin:
    return Twin(diffusers_backend, diffusers_unet(model))


@pytest.fixture
def calls(model):
    """Inputs and results of every call of ComfyUI's U-Net."""
    recorded = []

    def record(_, args, kwargs, out):
        recorded.append((args[0].clone(), args[1].clone(), kwargs["context"].clone(), out.clone()))

    hook = model.model.diffusion_model.register_forward_hook(record, with_kwargs=True)
    yield recorded
    hook.remove()


@pytest.mark.parametrize("frames", [8, 16])
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_plain_motion_is_the_published_animatediff(
    flash, model, sample, calls, twin, assert_same, tmp_path, version, frames
):
    """diffusers' AnimateDiff, with its motion norm per frame as in the published code, is the judge."""
    adapter = MotionAdapter(
        block_out_channels=twin.unet.config.block_out_channels,
        motion_num_attention_heads=8,
        use_motion_mid_block=version == "v2",
    )
    randomise(adapter, seed=12).save_pretrained(tmp_path)
    motion = flash.backend.load_motion(tmp_path / "diffusion_pytorch_model.safetensors")
    sample(flash.backend.add_motion(model, motion), steps=1, frames=frames)
    oracle = UNetMotionModel.from_unet2d(twin.unet, adapter).eval()
    (latents, timesteps, text, eps), *_ = calls
    videos = latents.unflatten(0, (2, frames)).transpose(1, 2)

    def theirs():
        return oracle(videos, timesteps[::frames], text).sample.transpose(1, 2).flatten(0, 1)

    uncorrected = theirs()
    per_frame(oracle)
    assert_same(eps, theirs())
    assert float((eps - uncorrected).norm() / uncorrected.norm()) > 1e-2


@pytest.fixture(params=["plain", "action"])
def action_or_none(request, action):
    return action if request.param == "action" else None


@pytest.fixture
def animated_twin(twin, motion_weights, action_or_none):
    return twin.backend.add_action(twin.unet, motion_weights, action_or_none, 0.8)


def test_one_call_is_the_same(
    flash, model, motion, action_or_none, reference, sample, calls, animated_twin, assert_same
):
    m = flash.backend.add_action(model, motion, action_or_none, 0.8)
    sample(flash.backend.add_first_frame(m, reference))
    net = animated_twin
    for latents, timesteps, text, eps in calls:
        videos = latents.unflatten(0, (2, -1))
        theirs = net.predict(videos, timesteps[:: videos.shape[1]], text.unflatten(0, (2, -1)))
        assert_same(eps, theirs.flatten(0, 1))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_plain_motion_is_the_same(flash, model, motion_path, version, sample, calls, twin, assert_same):
    motion = flash.backend.load_motion(motion_path, version)
    assert motion.config.pool_resnet_norms == (version == "v1")
    sample(flash.backend.add_motion(model, motion))
    net = twin.backend.add_motion(twin.unet, flash.motion_file.read_motion(motion_path, version))
    for latents, timesteps, text, eps in calls:
        videos = latents.unflatten(0, (2, -1))
        theirs = net.predict(videos, timesteps[:: videos.shape[1]], text.unflatten(0, (2, -1)))
        assert_same(eps, theirs.flatten(0, 1))


@pytest.mark.parametrize(
    ("prediction", "limit"),
    [
        ("epsilon", 1e-4),
        ("v_prediction", 1e-3),  # random velocities amplify rounding: inputs off by 3e-7 end 4.5e-4 apart
    ],
)
def test_equal_seeds_give_equal_videos(
    flash,
    model,
    motion,
    action_or_none,
    reference,
    z0,
    sample,
    prompts,
    twin,
    animated_twin,
    assert_same,
    prediction,
    limit,
):
    if prediction == "v_prediction":
        (model,) = ModelSamplingDiscrete().patch(model, prediction, zsnr=False)
    m = flash.backend.add_action(model, motion, action_or_none, 0.8)
    m = flash.backend.add_first_frame(m, reference)
    ours = sample(m, "ddim", "ddim_uniform", steps=25)
    theirs = flash.sampling.sample_video(
        animated_twin.predict,
        z0,
        prompts.positive[0][0],
        prompts.negative[0][0],
        prediction=prediction,
        seed=1,
        config=flash.sampling.SamplerConfig(num_frames=5),
        style=flash.adain.AdaINConfig(strength=0.0),
    )
    assert_same(ours, theirs / 0.18215, limit)


def test_both_run_the_same_timesteps_where_the_steps_divide(flash, model, motion):
    schedule = flash.backend.add_motion(model, motion).get_model_object("model_sampling")
    for steps in (n for n in range(1, 1000) if 1000 % n == 0):
        sigmas = ddim_scheduler(schedule, steps)
        assert torch.equal(sigmas[:-1], schedule.sigmas[flash.noise_schedule.ddim_timesteps(steps)])


def test_both_know_a_checkpoint_by_the_same_fingerprint(twin, caplog, action, motion_weights):
    # the action names the fingerprint that ComfyUI's backend computes
    twin.backend.add_action(twin.unet, motion_weights, action)
    assert "it may differ" not in caplog.text

"""An action learned on ComfyUI's U-Net is the one learned on diffusers'."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.comfy.sd15.train.action import ComfyHost
from flash_pack.flash_modules.backends.diffusers.sd15.train.action import DiffusersHost
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, Stills, VideoCall
from flash_pack.flash_modules.flash.training.action_training import (
    CHECKPOINTING,
    ActionTraining,
    ActionTrainingConfig,
    Host,
)
from flash_pack.flash_modules.flash.training.exam import ExamConfig
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig
from flash_pack.flash_modules.flash.training.loss import denoising_losses, total_loss
from flash_pack.flash_modules.flash.training.method import VARIANTS
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.comfy.backend import two_hosts

SIZE, FRAMES = 64, 4
CPU = torch.device("cpu")


def config_of(variant: int = 5, **changes) -> ActionTrainingConfig:
    method = replace(VARIANTS[variant], augment=AugmentConfig(size=SIZE))
    return ActionTrainingConfig(
        method=method,
        sampling=SamplingConfig(num_frames=FRAMES),
        pool=PoolConfig(per_clip=2),
        loop=LoopConfig(steps=20),
        **changes,
    )


@cache
def clip_of_comfyui():
    return two_hosts.comfy_clip(two_hosts.text_encoder())


@cache
def vae_of_comfyui():
    return two_hosts.comfy_vae(two_hosts.vae())


@pytest.fixture(autouse=True)
def _outside_of_inference_mode():
    """As the node's function runs."""
    with torch.inference_mode(False):
        yield


@pytest.fixture
def shared(make_model):
    """A MODEL as nodes get it: made in inference mode."""
    with torch.inference_mode():
        return make_model(0)


@pytest.fixture
def make_ours(shared, motion):
    def make(config: ActionTrainingConfig, model=shared) -> ComfyHost:
        return ComfyHost(model, clip_of_comfyui(), vae_of_comfyui(), motion, config)

    return make


@pytest.fixture
def make_theirs(shared, motion_weights):
    def make(config: ActionTrainingConfig) -> DiffusersHost:
        return DiffusersHost(two_hosts.diffusers_base(shared), "small", motion_weights, config, CPU)

    return make


Gradients = dict[str, Tensor]


def learn(
    host: Host, config: ActionTrainingConfig, swapped=(0, 2, 5), seed: int = 7
) -> tuple[float, Gradients]:
    """Loss and gradients of one step."""
    generator = torch.Generator().manual_seed(7)
    videos = 2 if config.method.twins else 1
    latents, noise = torch.randn(2, videos, FRAMES, 4, SIZE // 8, SIZE // 8, generator=generator)
    text = torch.randn(1, 7, two_hosts.CONTEXT, generator=generator)
    swaps = torch.tensor([i in swapped for i in range(len(host.aligned_layers))])
    call = VideoCall(num_pairs=1, swaps_L=swaps) if config.method.twins else None
    losses = denoising_losses(host.predict, latents, noise, torch.tensor([700]), text, call, law=host.noise)
    loss = total_loss(losses)
    loss.backward()
    gradients = {name: w.grad.clone() for name, w in host.weights.items() if w.grad is not None}
    for weight in host.weights.values():
        weight.grad = None
    return float(loss.detach()), gradients


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def worst(found: Gradients, expected: Gradients) -> float:
    """The largest relative difference among all gradients."""
    assert found.keys() == expected.keys()
    return max(difference(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_has_the_loss_and_the_gradients_of_the_other_host(make_ours, make_theirs, variant):
    config = config_of(variant)
    theirs = make_theirs(config)
    loss, gradients = learn(theirs, config)
    ours = make_ours(config)
    assert list(ours.aligned_layers) == list(theirs.aligned_layers)
    assert ours.weights.keys() == theirs.weights.keys()
    assert ours.fingerprints == theirs.fingerprints
    found, found_gradients = learn(ours, config)
    assert abs(found / loss - 1) <= 1e-5
    assert len(found_gradients) == len(theirs.weights)
    assert worst(found_gradients, gradients) <= 1e-5


@pytest.mark.parametrize("after_attention", [True, False])
def test_channels_beyond_those_of_a_still_clip_are_those_of_the_other_host(
    make_ours, make_theirs, after_attention
):
    config = config_of()
    alignment = AlignmentConfig(relative_to_still=True, after_attention=after_attention, tau=60.0)
    config = replace(config, method=replace(config.method, alignment=alignment))
    losses = [learn_beyond_still(make(config)) for make in (make_ours, make_theirs)]
    assert abs(losses[0] / losses[1] - 1) <= 1e-5
    assert abs(learn(make_ours(config), config)[0] / losses[0] - 1) > 1e-6


@torch.no_grad()
def learn_beyond_still(host: Host) -> float:
    """The loss of a pair whose channels were chosen so."""
    generator = torch.Generator().manual_seed(7)
    latents, noise = torch.randn(2, 2, FRAMES, 4, SIZE // 8, SIZE // 8, generator=generator)
    text, timestep = torch.randn(1, 7, two_hosts.CONTEXT, generator=generator), torch.tensor([700])
    stills = Stills(num_videos=1)
    host.predict(latents[:1, :1] + noise[:1], timestep, text, VideoCall(stills=stills))
    swaps = torch.tensor([i in (0, 2, 5) for i in range(len(host.aligned_layers))])
    call = VideoCall(num_pairs=1, swaps_L=swaps, stills=stills)
    return float(
        total_loss(denoising_losses(host.predict, latents, noise, timestep, text, call, law=host.noise))
    )


def test_version_1_with_its_pooled_norms_learns_alike(flash, shared, motion_path):
    config = config_of(checkpointing="all")
    base, weights = two_hosts.diffusers_base(shared), flash.motion_file.read_motion(motion_path, "v1")
    loss, gradients = learn(DiffusersHost(base, "small", weights, config, CPU), config)
    motion = flash.backend.load_motion(motion_path, "v1")
    ours = ComfyHost(shared, clip_of_comfyui(), vae_of_comfyui(), motion, config)
    found, found_gradients = learn(ours, config)
    assert abs(found / loss - 1) <= 1e-5
    assert worst(found_gradients, gradients) <= 1e-5


def test_bf16_is_as_far_from_fp32_as_in_the_other_host(make_ours, make_theirs):
    exact, half = config_of(), config_of(dtype=torch.bfloat16)
    _, expected = learn(make_theirs(exact), exact)
    errors = []
    for make in (make_ours, make_theirs):
        _, found = learn(make(half), half)
        whole = [torch.cat([one[name].flatten().float() for name in expected]) for one in (found, expected)]
        errors.append(difference(*whole))
    assert errors[0] <= 1.5 * errors[1]


@pytest.mark.parametrize("checkpointing", CHECKPOINTING[1:])
@pytest.mark.parametrize("variant", [1, 5])
def test_checkpointing_changes_no_gradient(make_ours, variant, checkpointing):
    config = config_of(variant)
    host = make_ours(config)
    loss, gradients = learn(host, config)
    host.set_checkpointing(checkpointing)
    found, found_gradients = learn(host, config)
    assert found == loss
    assert worst(found_gradients, gradients) <= 1e-6


def train(host: Host, folder, clips, config) -> dict[str, Tensor]:
    training = ActionTraining(host, clips, config)
    training.run(RunFolder(folder, "run", training.settings(1)))
    return {name: weight.detach().clone() for name, weight in host.weights.items()}


def test_twenty_steps_give_the_weights_of_the_other_host(make_ours, make_theirs, tmp_path):
    config = config_of()
    clips = find_clips([two_hosts.write_clips(tmp_path / "turn")], ["a cube (turns:1.2) round"]).used
    theirs = make_theirs(config)
    before = {name: weight.detach().clone() for name, weight in theirs.weights.items()}
    expected = train(theirs, tmp_path / "theirs", clips, config)
    found = train(make_ours(config), tmp_path / "ours", clips, config)
    whole = [torch.cat([one[name].flatten() for name in expected]) for one in (found, expected)]
    assert difference(*whole) <= 1e-6
    changes = {name: difference(found[name] - before[name], expected[name] - before[name]) for name in found}
    assert max(changes.values()) <= 1e-3, max(changes.items(), key=lambda one: one[1])


def test_a_run_begun_in_one_host_goes_on_in_the_other(make_ours, make_theirs, tmp_path):
    config = config_of()
    clips = find_clips([two_hosts.write_clips(tmp_path / "turn")]).used
    whole = train(make_ours(config), tmp_path / "whole", clips, config)
    half = replace(config, loop=replace(config.loop, steps=10))
    train(make_theirs(half), tmp_path / "both", clips, half)
    found = train(make_ours(config), tmp_path / "both", clips, config)
    assert max(difference(found[name], whole[name]) for name in whole) <= 1e-4


def test_sample_is_that_of_the_other_host(flash, make_ours, make_theirs, tmp_path):
    config = config_of()
    clips = find_clips([two_hosts.write_clips(tmp_path / "turn")]).used
    sampler = flash.sampling.SamplerConfig(num_frames=FRAMES, steps=3, cfg=3.0)
    image = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found, expected = (
            torch.stack(list(ActionTraining(host, clips, config).animate(image, "turn", 5, sampler)))
            for host in (make_ours(config), make_theirs(config))
        )
    assert float((found - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("count", [2, 6])
def test_exam_is_that_of_the_other_host(make_ours, make_theirs, tmp_path, count):
    config = config_of(exam=ExamConfig(videos=1))
    clips = find_clips([two_hosts.write_clips(tmp_path / "turn", count)]).used
    exams = [ActionTraining(make(config), clips, config).exam() for make in (make_ours, make_theirs)]
    assert exams[0]() == pytest.approx(exams[1](), rel=1e-4)

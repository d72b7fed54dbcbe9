"""A detail decoder learned on ComfyUI's VAE is the one learned on diffusers'."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.comfy.sd15.train.detail import ComfyVae
from flash_pack.flash_modules.backends.diffusers.sd15.train.detail import DiffusersVae
from flash_pack.flash_modules.flash.training.detail_training import (
    DetailHost,
    DetailTraining,
    DetailTrainingConfig,
)
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.flash_modules.training.sampling import SamplingConfig
from flash_pack.tests.comfy.backend import two_hosts

CONFIG = DetailTrainingConfig(
    size=64,
    width=8,
    sampling=SamplingConfig(num_frames=4),
    loop=replace(DetailTrainingConfig().loop, steps=20),
)
AT_WILL = ".attn.to_k.bias"
"""It moves all scores of a query alike, which softmax does not see: its gradient is rounding alone."""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _outside_of_inference_mode():
    """As the node's function runs."""
    with torch.inference_mode(False):
        yield


@pytest.fixture
def shared():
    """A VAE as nodes get it: made in inference mode."""
    with torch.inference_mode():
        return two_hosts.comfy_vae(two_hosts.vae())


@pytest.fixture
def make_ours(shared):
    return lambda dtype=torch.float32: ComfyVae(shared, dtype)


@pytest.fixture
def make_theirs():
    return lambda dtype=torch.float32: DiffusersVae(two_hosts.vae(), "small", dtype, CPU)


@pytest.fixture
def clips(tmp_path):
    return find_clips([two_hosts.write_clips(tmp_path / "turn")]).used


def train(host: DetailHost, folder, clips, config=CONFIG) -> dict[str, Tensor]:
    training = DetailTraining(host, clips, config)
    training.run(RunFolder(folder, "run", training.settings(1)))
    return {name: weight.detach().clone() for name, weight in training.decoder.named_parameters()}


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


def gradients(host: DetailHost, clips, config=CONFIG) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one micro-batch, of a decoder that has begun to learn."""
    training = DetailTraining(host, clips, config)
    generator = torch.Generator().manual_seed(3)
    for weight in training.decoder.parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=generator)
    loss = training.loss(5)
    loss.backward()
    return float(loss.detach()), {name: w.grad for name, w in training.decoder.named_parameters()}


def test_a_step_has_the_loss_and_the_gradients_of_the_other_host(make_ours, make_theirs, clips):
    loss, expected = gradients(make_theirs(), clips)
    found_loss, found = gradients(make_ours(), clips)
    assert abs(found_loss / loss - 1) <= 1e-5
    assert all(gradient is not None and gradient.any() for gradient in expected.values())
    assert max(difference(found[name], expected[name]) for name in expected if AT_WILL not in name) <= 1e-4


def test_twenty_steps_give_the_weights_of_the_other_host(make_ours, make_theirs, clips, tmp_path):
    before = DetailTraining(make_theirs(), clips, CONFIG).decoder.state_dict()
    expected = train(make_theirs(), tmp_path / "theirs", clips)
    found = train(make_ours(), tmp_path / "ours", clips)
    whole = [torch.cat([one[name].flatten() for name in expected]) for one in (found, expected)]
    assert difference(*whole) <= 1e-6
    learned = [name for name in found if AT_WILL not in name]
    changes = {
        name: difference(found[name] - before[name], expected[name] - before[name]) for name in learned
    }
    assert max(changes.values()) <= 1e-3, max(changes.items(), key=lambda one: one[1])


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_run_begun_in_one_host_goes_on_in_the_other(make_ours, make_theirs, clips, tmp_path, ours_first):
    whole = train(make_ours(), tmp_path / "whole", clips)
    first, second = (make_ours, make_theirs) if ours_first else (make_theirs, make_ours)
    # the cooldown is a share of the steps, so a run is stopped and not shortened
    training = DetailTraining(first(), clips, CONFIG)
    run = RunFolder(tmp_path / "both", "run", training.settings(1))
    done = training.run(run, on_step=lambda progress: progress.step == 10 and run.stop_file.touch())
    assert done.step == 10
    found = train(second(), tmp_path / "both", clips)
    assert max(difference(found[name], whole[name]) for name in whole) <= 1e-4


def test_bf16_is_as_far_from_fp32_as_in_the_other_host(make_ours, make_theirs, clips):
    _, expected = gradients(make_theirs(), clips)
    errors = []
    for make in (make_ours, make_theirs):
        _, found = gradients(make(torch.bfloat16), clips, replace(CONFIG, dtype=torch.bfloat16))
        whole = [torch.cat([one[name].flatten().float() for name in expected]) for one in (found, expected)]
        errors.append(difference(*whole))
    assert errors[0] <= 1.5 * errors[1]


def test_pictures_on_the_way_are_those_of_the_other_host(make_ours, make_theirs, clips):
    found, expected = (
        DetailTraining(host, clips, CONFIG).sample_sheet() for host in (make_ours(), make_theirs())
    )
    assert found.shape == (4 * 64, 2 * 64, 3)
    assert float((found - expected).abs().max()) <= 1e-5


def test_the_shared_vae_is_untouched(shared, make_ours, clips, tmp_path):
    before = two_hosts.copies(shared.patcher)
    modules = list(shared.first_stage_model.modules())
    asked = [weight.requires_grad for weight in shared.first_stage_model.parameters()]
    pixels = torch.rand(1, 64, 64, 3)
    with torch.inference_mode():
        decoded = shared.decode(shared.encode(pixels))
    train(make_ours(), tmp_path / "ours", clips, replace(CONFIG, loop=LoopConfig(steps=2)))
    assert list(shared.first_stage_model.modules()) == modules
    after = two_hosts.copies(shared.patcher)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert [weight.requires_grad for weight in shared.first_stage_model.parameters()] == asked
    with torch.inference_mode():
        assert torch.equal(shared.decode(shared.encode(pixels)), decoded)


def test_a_run_is_known_alike_in_both_hosts(make_ours, make_theirs, clips):
    ours, theirs = (DetailTraining(host, clips, CONFIG).settings(1) for host in (make_ours(), make_theirs()))
    assert ours == theirs


def test_a_cost_counts_frames_and_size_and_computes_nothing(make_ours, clips):
    training = DetailTraining(make_ours(), clips, CONFIG)
    cost, fewer, larger = training.cost(), training.cost(frames=1), training.cost(size=128)
    assert 0 < fewer.flops < cost.flops < larger.flops
    assert 0 < fewer.peak_bytes < cost.peak_bytes < larger.peak_bytes
    assert all(weight.grad is None for weight in training.decoder.parameters())


def test_a_vae_with_another_decoder_is_refused(shared, make_ours):
    shared.first_stage_model.decoder.up[0].block[-1].out_channels = 16
    with pytest.raises(ValueError, match=r"VAE has \[32, 32, 32, 32\] channels and its decoder \[16, 32"):
        make_ours()

"""What would go wrong in ComfyUI without a word, were it not guarded: Cancel, LoRAs, kernels, other nodes."""

import json
from dataclasses import replace

import comfy.ldm.modules.attention as comfy_attention
import comfy.model_management
import pytest
import torch
from comfy.patcher_extension import WrappersMP

from flash_pack.flash_modules.backends.comfy.sd15 import add_motion
from flash_pack.flash_modules.backends.comfy.sd15.train.action import ComfyHost
from flash_pack.flash_modules.backends.comfy.sd15.train.own_weights import (
    base_fingerprint,
    check_learnable,
    own_weights,
)
from flash_pack.flash_modules.flash.training.action_training import ActionTraining
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.tests.comfy.backend import two_hosts
from flash_pack.tests.comfy.backend.test_learning import (
    clip_of_comfyui,
    config_of,
    learn,
    vae_of_comfyui,
    worst,
)


@pytest.fixture(autouse=True)
def _outside_of_inference_mode():
    with torch.inference_mode(False):
        yield


@pytest.fixture
def shared(make_model):
    with torch.inference_mode():
        return make_model(0)


@pytest.fixture
def with_lora(shared):
    """The MODEL behind a LoRA of rank 2 on spatial keys and on a convolution, which learns or does not."""
    generator = torch.Generator().manual_seed(21)
    import comfy.lora

    names = comfy.lora.model_lora_keys_unet(shared.model, {})
    state = {}
    for name in (n for n in names if n.startswith("lora_unet_") and n.endswith(("attn1_to_k", "ff_net_2"))):
        rows, columns = shared.model.state_dict()[names[name]].shape
        state[f"{name}.lora_up.weight"] = 0.3 * torch.randn(rows, 2, generator=generator)
        state[f"{name}.lora_down.weight"] = torch.randn(2, columns, generator=generator)
    patches = comfy.lora.load_lora(state, names)
    m = shared.clone()
    assert m.add_patches(patches, 0.7)
    return m


@pytest.fixture
def make_host(motion):
    def make(model, config=None) -> ComfyHost:
        return ComfyHost(model, clip_of_comfyui(), vae_of_comfyui(), motion, config or config_of())

    return make


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.fixture
def clips(tmp_path):
    return find_clips([two_hosts.write_clips(tmp_path / "turn")]).used


def trained(host, folder, clips, config):
    training = ActionTraining(host, clips, config)
    training.run(RunFolder(folder, "run", training.settings(1)))
    return {name: weight.detach().clone() for name, weight in host.weights.items()}


@pytest.mark.parametrize("when", [5, 150, 320, 471])
def test_cancel_within_a_step_loses_nothing_but_the_step(shared, make_host, clips, tmp_path, when):
    """It comes from within the forward pass, or from layers that run again in the backward pass."""
    config = config_of(checkpointing="all")
    config = replace(config, loop=replace(config.loop, steps=4))
    whole = trained(make_host(shared), tmp_path / "whole", clips, config)
    host = make_host(shared, config)
    counted = [0]

    def count(*_):
        counted[0] += 1
        if counted[0] == when:
            comfy.model_management.interrupt_current_processing()

    for layer in host.model.unet.modules():
        layer.register_forward_pre_hook(count)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        trained(host, tmp_path / "cancelled", clips, config)
    assert not comfy.model_management.processing_interrupted()
    assert all(weight.grad is None for weight in host.weights.values())
    assert same(trained(make_host(shared, config), tmp_path / "cancelled", clips, config), whole)


def test_weights_are_those_that_comfyui_would_compute_with(with_lora):
    found = own_weights(with_lora)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([with_lora])
        expected = {k: v.clone() for k, v in with_lora.model.state_dict().items() if k in found}
        comfy.model_management.unload_all_models()
    assert same(found, expected)


def test_what_is_learned_stays_when_comfyui_unloads_its_models(with_lora, make_host, clips, tmp_path):
    shared_before = two_hosts.copies(with_lora)
    config = config_of()
    config = replace(config, loop=replace(config.loop, steps=2))
    host = make_host(with_lora, config)
    learned = trained(host, tmp_path / "runs", clips, config)
    with torch.inference_mode():
        comfy.model_management.load_models_gpu([with_lora])
        comfy.model_management.unload_all_models()
    assert same({name: weight.detach() for name, weight in host.weights.items()}, learned)
    assert same(with_lora.model.state_dict(), shared_before)
    assert not any(weight.requires_grad for weight in with_lora.model.parameters())
    assert not any(layer._forward_hooks for layer in with_lora.model.modules())


def test_kernel_that_comfyui_was_started_with_is_not_learned_through(shared, make_host, monkeypatch):
    config = config_of()
    _, expected = learn(make_host(shared), config)

    @comfy_attention.wrap_attn
    def without_backward(q, k, v, heads, **kwargs):
        with torch.no_grad():
            return comfy_attention.attention_basic(q, k, v, heads)

    monkeypatch.setattr(comfy_attention, "optimized_attention", without_backward)
    _, found = learn(make_host(shared), config)
    assert worst(found, expected) == 0.0


def test_lora_is_baked_in_and_told(shared, with_lora, make_host, clips, tmp_path):
    assert base_fingerprint(with_lora) != base_fingerprint(shared)
    host = make_host(with_lora)
    assert host.fingerprints["base"] == base_fingerprint(with_lora)
    assert make_host(shared).fingerprints["base"] == base_fingerprint(shared)
    ActionTraining(host, clips, config_of()).write(tmp_path / "turn.safetensors", 1, standalone=False)
    from safetensors import safe_open

    with safe_open(tmp_path / "turn.safetensors", "pt") as file:
        told = json.loads(file.metadata()["flash.baked_in"])
    assert told == {"weights": 12, "kinds": ["lora"], "strengths": [0.7]}


def nothing(*args, **kwargs):
    raise AssertionError


SPOILERS = {
    "the patch 'attn2_patch'": lambda m: m.set_model_attn2_patch(nothing),
    "the patch 'output_block_patch'": lambda m: m.set_model_output_block_patch(nothing),
    "the replacement of 'attn1'": lambda m: m.set_model_attn1_replace(nothing, "middle", 0),
    "the option 'sampler_cfg_function'": lambda m: m.set_model_sampler_cfg_function(nothing),
    "the option 'model_function_wrapper'": lambda m: m.set_model_unet_function_wrapper(nothing),
    "the option 'optimized_attention_override'": lambda m: m.model_options["transformer_options"].update(
        optimized_attention_override=nothing
    ),
    "the object patch 'diffusion_model.out'": lambda m: m.add_object_patch("diffusion_model.out", None),
    "the weight wrapper of 'diffusion_model.out.2.weight'": lambda m: m.add_weight_wrapper(
        "diffusion_model.out.2.weight", nothing
    ),
    "the wrapper 'caching'": lambda m: m.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "caching", nothing),
    "the injection 'other'": lambda m: m.set_injections("other", []),
    "the additional model 'other'": lambda m: m.set_additional_models("other", [m.clone()]),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_what_other_nodes_put_on_the_model_is_refused_by_name(shared, name):
    m = shared.clone()
    SPOILERS[name](m)
    with pytest.raises(ValueError, match=name):
        check_learnable(m)


def test_plain_model_and_lora_are_accepted(shared, with_lora):
    check_learnable(shared)
    check_learnable(with_lora)


def test_model_with_a_motion_is_refused(shared, motion):
    with pytest.raises(ValueError, match="has a motion already"):
        check_learnable(add_motion(shared, motion))


def test_prediction_is_the_models_own(shared, make_host):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    assert make_host(shared).noise.prediction == "epsilon"
    (velocity,) = ModelSamplingDiscrete().patch(shared, "v_prediction", zsnr=False)
    assert make_host(velocity).noise.prediction == "v_prediction"
    (distilled,) = ModelSamplingDiscrete().patch(shared, "lcm", zsnr=False)
    with pytest.raises(ValueError, match="predicts LCM"):
        check_learnable(distilled)


def test_text_is_taken_as_it_is_and_must_be_short(shared, make_host):
    host = make_host(shared)
    assert not torch.equal(host.embed("a cube (turns:1.5)"), host.embed("a cube turns"))
    assert host.embed("cube " * 75).shape == (1, 77, two_hosts.CONTEXT)
    with pytest.raises(ValueError, match=r"has 76 tokens, and Stable Diffusion 1\.5 reads 75"):
        host.embed("cube " * 76)


def test_vae_encodes_no_tiles_where_memory_is_short(shared, make_host, monkeypatch):
    host = make_host(shared)

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(host.vae.first_stage_model, "encode", full)
    with host.encoder() as encode, pytest.raises(torch.OutOfMemoryError):
        encode(torch.rand(2, 3, 64, 64))

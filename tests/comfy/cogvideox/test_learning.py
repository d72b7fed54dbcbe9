"""Tokens that learn on ComfyUI's CogVideoX, against the command line's host, which equals the method."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.reweighting import PAPER
from flash_pack.flash_modules.flexiact.training import saving as saving_module
from flash_pack.flash_modules.flexiact.training.needs import step_needs
from flash_pack.flash_modules.flexiact.training.saving import SAVINGS, Saving
from flash_pack.flash_modules.flexiact.training.token_training import TokenTraining, TokenTrainingConfig
from flash_pack.flash_modules.training.run_folder import RunFolder
from flash_pack.tests.backends.flexiact_oracle import oracle, small_inputs
from flash_pack.tests.backends.small_cogvideox import LAYERS, TOKENS, small_adapter, small_transformer
from flash_pack.tests.backends.test_token_training import LOOP, STEPS, _lesson
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_model, difference


@pytest.fixture(autouse=True)
def _as_a_node_that_learns(model) -> Iterator[None]:
    """Models are made in inference mode, as ComfyUI does; then it is left."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def in_comfyui(model, saving: Saving = SAVINGS[0], **config) -> TokenTraining:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.tokens import LearningTokens

    host = LearningTokens(model, TOKENS, saving)
    host.to(torch.device("cpu"))
    return TokenTraining(host, _lesson(), TokenTrainingConfig(loop=LOOP, **config))


def on_the_command_line(twin) -> TokenTraining:
    from flash_pack.flash_modules.backends.diffusers.cogvideox.train import LearningTokens

    return TokenTraining(LearningTokens(twin, TOKENS, SAVINGS[0]), _lesson(), TokenTrainingConfig(loop=LOOP))


@pytest.fixture
def twin():
    with torch.inference_mode(False), torch.enable_grad():
        return small_transformer()


def run(training: TokenTraining, folder: Path, steps: int = STEPS) -> None:
    done = []
    training.run(RunFolder(folder, "run", {}), on_step=done.append, stopped=lambda: len(done) >= steps)


def test_three_steps_are_those_of_the_command_line(model, twin, tmp_path) -> None:
    ours, theirs = in_comfyui(model), on_the_command_line(twin)
    for step in range(STEPS):
        losses = [training.loss(step) for training in (ours, theirs)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
        for loss in losses:
            loss.backward()
        for one, other in zip(ours.host.tokens.values(), theirs.host.tokens.values(), strict=True):
            assert difference(one.grad, other.grad) <= 1e-5
            one.grad = other.grad = None
        run(ours, tmp_path / "ours", steps=1)
        run(theirs, tmp_path / "theirs", steps=1)
        for one, other in zip(ours.host.tokens.values(), theirs.host.tokens.values(), strict=True):
            assert difference(one.detach(), other.detach()) <= 1e-5


def test_a_run_of_the_command_line_goes_on_in_comfyui(model, twin, tmp_path) -> None:
    whole, begun = on_the_command_line(twin), on_the_command_line(small_transformer())
    run(whole, tmp_path / "whole")
    run(begun, tmp_path / "parts", steps=1)
    rest = in_comfyui(model)
    run(rest, tmp_path / "parts")
    for name, tokens in whole.host.tokens.items():
        assert difference(rest.host.tokens[name].detach(), tokens.detach()) <= 1e-5


def test_both_hosts_know_the_base_by_one_hash(model, twin) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.own_net import base_fingerprint

    assert base_fingerprint(model) == on_the_command_line(twin).host.fingerprint


@pytest.mark.parametrize("saving", SAVINGS[1:])
def test_what_saves_memory_changes_nothing(saving: Saving, model, monkeypatch) -> None:
    monkeypatch.setattr(saving_module, "copied", lambda weight, device: weight.clone())  # as to a GPU
    plain, checkpointed = in_comfyui(model), in_comfyui(model, saving)
    losses = [training.loss(0) for training in (plain, checkpointed)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    for one, other in zip(plain.host.tokens.values(), checkpointed.host.tokens.values(), strict=True):
        assert difference(one.grad, other.grad) <= 1e-6


def test_checkpointing_runs_blocks_again(model) -> None:
    calls = []
    for saving in SAVINGS:
        training, seen = in_comfyui(model, saving), []
        for block in training.host.net.blocks:
            block.block.q.register_forward_hook(lambda *_, seen=seen: seen.append(None))
        training.loss(0).backward()
        calls.append(len(seen))
    assert calls == [LAYERS, *([2 * LAYERS] * 4)]


def test_a_kernel_without_backward_is_not_used(model, twin, monkeypatch) -> None:
    import comfy.ldm.cogvideo.model as core

    def without_backward(*args, **kwargs):
        raise AssertionError("ComfyUI's kernel was called")

    from comfy.ldm.modules.attention import wrap_attn

    monkeypatch.setattr(core, "optimized_attention", wrap_attn(without_backward))
    loss = in_comfyui(model).loss(0)
    assert loss.item() == pytest.approx(on_the_command_line(twin).loss(0).item(), rel=1e-6)


def test_the_shared_model_stays_bit_for_bit(model, tmp_path) -> None:
    before = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    run(in_comfyui(model), tmp_path)
    after = model.model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert not model.object_patches


def test_weights_are_the_models_own(model) -> None:
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.own_net import own_net

    net = own_net(model)
    for name, weight in model.model.diffusion_model.state_dict().items():
        assert net.state_dict()[name].data_ptr() == weight.data_ptr()


def test_a_lora_is_baked_in(model, twin) -> None:
    from comfy.weight_adapter import LoRAAdapter

    low_rank = small_adapter().parts[0, "q"]
    lora = LoRAAdapter(set(), (low_rank.up_CR, low_rank.down_RC, low_rank.alpha, None, None, None))
    m = model.clone()
    m.add_patches({"diffusion_model.blocks.0.q.weight": lora}, 0.5)
    theirs = on_the_command_line(twin)
    with torch.no_grad():
        twin.transformer_blocks[0].attn1.to_q.weight += low_rank.delta(0.5)
    assert in_comfyui(m).loss(0).item() == pytest.approx(theirs.loss(0).item(), rel=1e-6)
    assert in_comfyui(model).loss(0).item() != pytest.approx(theirs.loss(0).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_weights_keep_their_number_type(dtype: torch.dtype, twin) -> None:
    with torch.inference_mode():
        model = comfyui_model(twin, dtype)
    training = in_comfyui(model, SAVINGS[1])
    training.loss(0).backward()
    host = training.host
    assert host.dtype == torch.float32
    assert {weight.dtype for weight in host.net.blocks.parameters()} == {dtype}
    assert all(tokens.grad.abs().max() > 0 for tokens in host.tokens.values())


@pytest.mark.parametrize("saving", SAVINGS)
def test_tokens_perform_as_they_learn(saving: Saving, model) -> None:
    """With early boost and RefAdapter; afterwards learning is as before."""
    training, inputs, adapter = in_comfyui(model, saving), small_inputs(), small_adapter()
    host = training.host
    with torch.no_grad():
        for number, tokens in enumerate(host.tokens.values()):
            tokens += nn.init.normal_(
                torch.empty_like(tokens), generator=torch.Generator().manual_seed(number)
            )
    performance = Performance(action=training.learned("crouch", 0), boost=PAPER)
    before = training.loss(0).item()
    for timestep in (100, 750, 900):
        with torch.inference_mode(), host.performing(performance, adapter, 0.7) as velocity:
            found = velocity(
                inputs.latents_BFCHW,
                inputs.picture_BFCHW,
                torch.tensor([timestep]),
                inputs.text_embeds_BMC,
            )
        wanted = oracle(timestep, inputs, [performance], adapter, 0.7)
        assert difference(found, wanted) < 1e-6
    assert training.loss(0).item() == before


def test_a_step_is_counted_without_weights_on_the_device(model, twin) -> None:
    counted = [step_needs(one.host, SAVINGS[1]) for one in (in_comfyui(model), on_the_command_line(twin))]
    assert counted[0].device_bytes == pytest.approx(counted[1].device_bytes, rel=0.1)
    assert counted[0].flops == pytest.approx(counted[1].flops, rel=0.01)


@pytest.mark.parametrize("what", ["action", "adapter", "patch"])
def test_a_model_that_carries_something_else_is_refused(what: str, model) -> None:
    from flash_pack.flash_modules.backends.comfy import cogvideox as backend
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.own_net import check_learnable
    from flash_pack.tests.backends.small_cogvideox import small_action

    check_learnable(backend.corrected(model))
    if what == "patch":
        m = model.clone()
        m.set_model_sampler_cfg_function(lambda args: args["cond"])
        said = "carries what cannot be learned with: the option 'sampler_cfg_function'"
    else:
        strength, adapter = (1.0, None) if what == "action" else (0.0, small_adapter())
        m = backend.transfer_action(model, Performance(action=small_action(), strength=strength), adapter)
        said = "connect Load CogVideoX I2V itself"
    with pytest.raises(ValueError, match=said):
        check_learnable(m)


def test_quantised_weights_are_spelled_out(tmp_path) -> None:
    """fp8 with a scale for each weight, as ComfyUI's own files have it."""
    from safetensors.torch import save_file

    from flash_pack.flash_modules.backends.comfy.cogvideox.load import load_cogvideox
    from flash_pack.flash_modules.backends.comfy.cogvideox.names import core_names
    from flash_pack.flash_modules.backends.comfy.cogvideox.train.own_net import base_fingerprint, own_net

    true_size = {"sample_width": 90, "sample_height": 60, "sample_frames": 49, "max_text_seq_length": 226}
    weights = core_names(small_transformer(attention_head_dim=64, **true_size).state_dict())
    weights = {name: weight.bfloat16() for name, weight in weights.items()}
    name = "blocks.0.q.weight"
    scale = weights[name].float().abs().max() / 448
    kept = (weights[name].float() / scale).to(torch.float8_e4m3fn)
    quantised = {name: kept, "blocks.0.q.scale_weight": scale, "scaled_fp8": kept[0, :2].clone()}
    save_file({**weights, **quantised}, tmp_path / "model.safetensors")
    with torch.inference_mode():
        model = load_cogvideox(tmp_path / "model.safetensors")
    net = own_net(model)
    torch.testing.assert_close(net.get_parameter(name).float(), scale * kept.float(), atol=1e-2, rtol=1e-2)
    assert torch.equal(net.get_parameter("blocks.1.q.weight").bfloat16(), weights["blocks.1.q.weight"])
    assert len(base_fingerprint(model)) == 64

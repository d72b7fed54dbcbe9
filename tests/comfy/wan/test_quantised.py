"""Quantised bases learn as they lie: computed as core does, with gradients through every kind of layer."""

import pytest
import torch

from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall
from flash_pack.tests.comfy.wan.small_wan import (
    SHAPE_FCHW,
    TEXT,
    TEXT_WIDTH,
    difference,
    draw,
    quantised_model,
)

KINDS = (
    "float8_e4m3fn",
    "float8_e5m2",
    "mxfp8",
    "nvfp4",
    "int8_tensorwise",
    "convrot_w4a4",
    "asym_w4a8_int8",
)
CALL = VideoCall(num_pairs=1, swaps_L=torch.tensor([True, False, True, False]))


@pytest.fixture
def make_net(learning):
    def make(of, alignment=None):
        from flash_pack.flash_modules.backends.comfy.wan.train.alignment import LearningWan
        from flash_pack.flash_modules.backends.comfy.wan.train.low_rank import add_low_rank
        from flash_pack.flash_modules.backends.comfy.wan.train.own_net import own_net

        net = own_net(of)
        weights = add_low_rank(net, 2, text=True, seed=0)
        with torch.no_grad():  # as after some steps
            for number, weight in enumerate(weights.values()):
                weight.add_(draw(*weight.shape, seed=number), alpha=0.02)
        return LearningWan(net, alignment or AlignmentConfig(tau=100.0, p=0.0)), weights

    return make


@pytest.fixture
def quantised(twin):
    def make(kind="float8_e4m3fn", **told):
        with torch.inference_mode():
            return quantised_model(twin, kind, **told)

    return make


def spelled_out(model):
    """A MODEL of the same weights, none of them quantised."""
    import comfy.sd
    from comfy.quant_ops import QuantizedTensor

    with torch.inference_mode():
        weights = {
            name: (w.dequantize() if isinstance(w, QuantizedTensor) else w).float()
            for name, w in model.model.diffusion_model.named_parameters()
        }
        return comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": torch.float32})


def inputs(dtype=torch.float32):
    latents = draw(2, *SHAPE_FCHW).to(dtype)
    return latents, torch.tensor([90.0, 90.0]), draw(1, TEXT, TEXT_WIDTH, seed=1).expand(2, -1, -1)


def gradients(net, weights, dtype=torch.float32, scale=1.0):
    (scale * net(*inputs(dtype), CALL).float().square().mean()).backward()
    found = torch.cat([weight.grad.flatten() for weight in weights.values()])
    for weight in weights.values():
        weight.grad = None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_go_through_layers_of_every_kind(make_net, quantised, kind, dtype):
    base = quantised(kind)
    ours, dense = (gradients(*make_net(of), dtype) for of in (base, spelled_out(base)))
    assert bool(ours.any())
    exact = dtype == torch.float32 and not kind.startswith("int8")  # whose activations are rounded to 8 bits
    assert difference(ours, dense) <= (1e-6 if exact else 0.02)


@pytest.fixture
def computes_in_fp8(quantised, monkeypatch):
    """A MODEL on a card that can: activations are rounded to fp8 as well."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    return quantised()


def test_layers_that_compute_in_fp8_learn_so_too(make_net, computes_in_fp8):
    net, weights = make_net(computes_in_fp8)
    dense, dense_weights = make_net(spelled_out(computes_in_fp8))
    ours, exact = gradients(net, weights), gradients(dense, dense_weights)
    assert 1e-3 < difference(ours, exact) < 0.1
    for checkpointing in ("motion", "all"):
        net.set_checkpointing(checkpointing)
        assert difference(gradients(net, weights), ours) <= 1e-6


def test_gradients_are_not_in_fp8_though_cores_training_asked_for_it(make_net, computes_in_fp8, monkeypatch):
    """Its Train LoRA leaves the wish behind, and gradients below 1e-5 were lost without a word."""
    import comfy.model_management

    from flash_pack.flash_modules.backends.comfy.learning.alone import training_alone

    small = 1e-6
    usual = gradients(*make_net(computes_in_fp8), scale=small)
    monkeypatch.setattr(comfy.model_management, "training_fp8_bwd", True)
    assert difference(gradients(*make_net(computes_in_fp8), scale=small), usual) > 0.5
    with training_alone():
        assert torch.equal(gradients(*make_net(computes_in_fp8), scale=small), usual)
    assert comfy.model_management.training_fp8_bwd


def test_patches_on_all_parts_of_a_layer_are_baked_in(make_net, quantised):
    """As LoRAs of distilled models have them: on weights, biases, norms and modulations."""
    layer = "blocks.1.self_attn.k"
    parts = [f"{layer}.weight", f"{layer}.bias", "blocks.1.ffn.0.bias", "blocks.2.norm3.weight"]
    parts.append("blocks.2.modulation")
    with torch.inference_mode():
        base = quantised()
        shapes = {name: base.model.diffusion_model.get_parameter(name).shape for name in parts}
        patches = {f"diffusion_model.{n}": ("diff", (draw(*s, seed=9),)) for n, s in shapes.items()}
        changed = base.clone()
        changed.add_patches(patches, 0.5)
    ours, _ = make_net(changed)
    other = spelled_out(base)
    with torch.inference_mode():
        other.add_patches(patches, 0.5)
    dense, _ = make_net(other)
    with torch.no_grad():
        assert difference(ours(*inputs()), dense(*inputs())) <= 1e-5
    assert ours.net.blocks[0].block.ffn[0].weight.dtype == ours.net.blocks[1].block.ffn[0].weight.dtype
    assert ours.net.blocks[1].block.ffn[0].quant_format == "float8_e4m3fn"


def test_a_layer_that_is_spelled_out_keeps_the_smoothing_of_its_inputs(make_net, quantised):
    """As files of some quantisers have it; a LoRA of nothing changes nothing."""
    name = "diffusion_model.blocks.1.ffn.0.weight"
    with torch.inference_mode():
        base = quantised("nvfp4")
        smoothing = torch.nn.Parameter(1 + 0.5 * draw(128, seed=2).abs(), requires_grad=False)
        base.model.diffusion_model.blocks[1].ffn[0].pre_quant_scale = smoothing
        changed = base.clone()
        changed.add_patches({name: ("diff", (torch.zeros(160, 128),))}, 1.0)
    (ours, _), (usual, _) = make_net(changed), make_net(base)
    assert not hasattr(ours.net.blocks[1].block.ffn[0], "pre_quant_scale")
    with torch.no_grad():
        assert difference(ours(*inputs()), usual(*inputs())) <= 1e-6

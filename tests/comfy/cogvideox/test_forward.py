"""One forward pass of ComfyUI's CogVideoX, against FlexiAct on diffusers' model as the paper describes it."""

import pytest
import torch

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.ref_adapter_file import write_ref_adapter
from flash_pack.tests.backends.flexiact_oracle import Inputs, oracle, small_inputs
from flash_pack.tests.backends.small_cogvideox import LAYERS, small_action, small_adapter
from flash_pack.tests.backends.test_transfer import BOOSTED, CASES, FALLING, PLAIN
from flash_pack.tests.comfy.cogvideox.two_hosts import comfyui_model, comfyui_velocity, difference

NOTHING = Performance(action=small_action(), strength=0.0)
WHOLE = "both, boost 1"


@pytest.fixture
def inputs() -> Inputs:
    return small_inputs()


def transferred(model, case: str):
    """Of several actions, one Transfer Action after the other; the first brings the RefAdapter."""
    performances, strength = CASES[case]
    adapter = small_adapter() if strength else None
    for performance in performances or [NOTHING]:
        model, adapter = backend.transfer_action(model, performance, adapter, strength), None
    return model


def wanted(case: str, inputs: Inputs, timestep: int = BOOSTED):
    performances, strength = CASES[case]
    return oracle(timestep, inputs, performances, small_adapter(), strength)


@pytest.mark.parametrize("timestep", [BOOSTED, FALLING, PLAIN])
@pytest.mark.parametrize("case", CASES)
def test_a_forward_equals_the_method(model, inputs, case: str, timestep: int) -> None:
    m = transferred(model, case)
    assert difference(comfyui_velocity(m, inputs, timestep), wanted(case, inputs, timestep)) < 1e-6


def test_comfyuis_own_forward_does_not(model, inputs) -> None:
    assert difference(comfyui_velocity(model, inputs, PLAIN), wanted("base", inputs, PLAIN)) > 1e-3


@pytest.mark.parametrize(
    "patch", ["use_rotary_positional_embeddings", "spatial_interpolation_scale", "patch_embed.forward"]
)
def test_every_correction_counts(model, inputs, patch: str) -> None:
    m = backend.corrected(model)
    del m.object_patches[f"diffusion_model.{patch}"]
    assert difference(comfyui_velocity(m, inputs, PLAIN), wanted("base", inputs, PLAIN)) > 1e-3


def test_a_second_action_leaves_the_first_model_as_it_was(model, inputs) -> None:
    first = transferred(model, WHOLE)
    backend.transfer_action(first, Performance(action=small_action(7, "wave")))
    assert difference(comfyui_velocity(first, inputs, BOOSTED), wanted(WHOLE, inputs)) < 1e-6


def test_a_converted_adapter_is_a_lora_for_comfyui(model, inputs, tmp_path) -> None:
    import comfy.sd
    import comfy.utils

    write_ref_adapter(tmp_path / "adapter.safetensors", small_adapter())
    lora = comfy.utils.load_torch_file(str(tmp_path / "adapter.safetensors"))
    m, _ = comfy.sd.load_lora_for_models(backend.corrected(model), None, lora, 0.7, 0.0)
    found = comfyui_velocity(m, inputs, BOOSTED)
    assert difference(found, wanted("adapter 0.7", inputs)) < 1e-6


def test_fp8_weights_are_much_less_exact(twin, inputs) -> None:
    """By 0.08 on these weights, about as much as the RefAdapter changes, which is rounded with them."""
    m = transferred(comfyui_model(twin, torch.float8_e4m3fn), WHOLE)
    assert 0.02 < difference(comfyui_velocity(m, inputs, BOOSTED), wanted(WHOLE, inputs)) < 0.15


def kernels() -> list[str]:
    from comfy.ldm.modules import attention

    return ["basic", *attention.REGISTERED_ATTENTION_FUNCTIONS]


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_of_comfyui_gives_the_same(model, inputs, name: str) -> None:
    from comfy.ldm.modules import attention

    kernel = attention.attention_basic if name == "basic" else attention.get_attention_function(name)
    used = []

    def override(func, *args, **kwargs):
        used.append(func)
        return kernel(*args, **kwargs)

    m = transferred(model, WHOLE)
    m.model_options["transformer_options"]["optimized_attention_override"] = override
    assert difference(comfyui_velocity(m, inputs, BOOSTED), wanted(WHOLE, inputs)) < 1e-6
    assert len(used) == LAYERS


@pytest.mark.parametrize("before", [True, False])
def test_another_override_goes_on_working(model, inputs, before: bool) -> None:
    """It is told no scale, which many do not know, and what it does is seen."""

    def louder(func, q, k, v, *args, **kwargs):
        assert "scale" not in kwargs
        return func(q, k, 2 * v, *args, **kwargs)

    def with_override(m):
        m = m.clone()
        m.model_options["transformer_options"]["optimized_attention_override"] = louder
        return m

    case = "tokens at strength 0.3"
    m = transferred(with_override(model), case) if before else with_override(transferred(model, case))
    found = comfyui_velocity(m, inputs, BOOSTED)
    for block in model.model.diffusion_model.blocks:
        block.attn_out.weight.mul_(2)
    assert difference(found, comfyui_velocity(transferred(model, case), inputs, BOOSTED)) < 1e-6


def test_a_cache_of_another_node_may_stand_in_for_the_model(model, inputs) -> None:
    """As EasyCache does, inside of our wrapper or outside."""
    from comfy.patcher_extension import WrappersMP

    m, kept = transferred(model, WHOLE), inputs.latents_BFCHW.transpose(1, 2)
    m.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cache", lambda executor, *args, **kwargs: kept)
    assert torch.equal(comfyui_velocity(m, inputs, BOOSTED), inputs.latents_BFCHW)


def test_blocks_that_are_left_out_are_told(model, inputs) -> None:
    def skip(hidden_states, encoder_hidden_states, **_):
        return hidden_states, encoder_hidden_states

    m = transferred(model, WHOLE)
    m.add_object_patch("diffusion_model.blocks.1.forward", skip)
    with pytest.raises(ValueError, match="2 of this model's 3 attentions ran, so another node leaves out or"):
        comfyui_velocity(m, inputs, BOOSTED)

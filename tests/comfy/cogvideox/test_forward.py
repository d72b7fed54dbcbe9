"""One forward pass of ComfyUI's CogVideoX against diffusers' with FlexiAct written slowly."""

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.comfy import cogvideox as backend
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.reweighting import RELEASED, EarlyBoost
from flash_pack.tests.comfy.cogvideox.small_cogvideox import (
    FRAMES,
    HEIGHT,
    LAYERS,
    TEXT,
    TEXT_WIDTH,
    WIDE,
    SlowPerformance,
    random_action,
    random_adapter,
    slow_velocity,
)

EARLY, LATE = 900, 500
"""Timesteps at which the early boost is full, and gone."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def comfyui_velocity(
    m, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep: int, text_BNC: Tensor
) -> Tensor:
    """Velocity as the sampler's way to the model gives it: with the MODEL's patches, options and wrappers."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([m])
    m.pre_run()
    options = dict(m.model_options["transformer_options"])
    options["wrappers"] = {kind: dict(by_key) for kind, by_key in m.wrappers.items()}
    x_BCFHW = torch.cat([latents_BFCHW, picture_BFCHW], dim=2).transpose(1, 2)
    out_BCFHW = m.model.diffusion_model(
        x_BCFHW, torch.full((len(x_BCFHW),), float(timestep)), context=text_BNC, transformer_options=options
    )
    m.cleanup()
    return out_BCFHW.transpose(1, 2)


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    picture = torch.zeros(2, FRAMES, 16, HEIGHT, WIDE)
    picture[:, :1] = draw(2, 1, 16, HEIGHT, WIDE, seed=1)
    return draw(2, FRAMES, 16, HEIGHT, WIDE, seed=2), picture, draw(2, TEXT, TEXT_WIDTH, seed=3)


def both(model, twin, inputs, timestep: int, slow: SlowPerformance) -> tuple[Tensor, Tensor]:
    latents, picture, text = inputs
    return (
        comfyui_velocity(model, latents, picture, timestep, text),
        slow_velocity(twin, latents, picture, timestep, text, slow),
    )


def test_the_corrected_model_is_diffusers(model, twin, inputs) -> None:
    ours, theirs = both(backend.corrected(model), twin, inputs, EARLY, SlowPerformance())
    assert difference(ours, theirs) <= 1e-5
    assert difference(comfyui_velocity(model, inputs[0], inputs[1], EARLY, inputs[2]), theirs) > 1e-3


ACTION, OTHER, ADAPTER = random_action(), random_action(seed=7, tokens=4, name="wave"), random_adapter()
NONE = Performance(action=ACTION, strength=0.0)
CASES = {
    "adapter": (NONE, 1.0, SlowPerformance(adapter=ADAPTER)),
    "adapter at 0.7": (NONE, 0.7, SlowPerformance(adapter=ADAPTER, adapter_strength=0.7)),
    "tokens": (Performance(action=ACTION, boost=RELEASED), None, SlowPerformance(ACTION)),
    "both": (Performance(action=ACTION, boost=RELEASED), 0.7, SlowPerformance(ACTION, ADAPTER, 0.7)),
    "paper": (Performance(action=ACTION), 0.7, SlowPerformance(ACTION, ADAPTER, 0.7, boost=1.0)),
    "half": (
        Performance(action=ACTION, boost=EarlyBoost(strength=0.5)),
        0.7,
        SlowPerformance(ACTION, ADAPTER, 0.7, boost=0.5),
    ),
    "weaker": (
        Performance(action=ACTION, strength=0.4),
        None,
        SlowPerformance(ACTION, boost=1.0, strength=0.4),
    ),
}


def transferred(model, performance: Performance, adapter_strength: float | None):
    adapter = None if adapter_strength is None else ADAPTER
    return backend.transfer_action(model, performance, adapter, adapter_strength or 0.0)


@pytest.mark.parametrize("case", CASES)
def test_a_transferred_action_is_flexiact(model, twin, inputs, case: str) -> None:
    performance, adapter_strength, slow = CASES[case]
    ours, theirs = both(transferred(model, performance, adapter_strength), twin, inputs, EARLY, slow)
    plain = slow_velocity(twin, *inputs[:2], EARLY, inputs[2], SlowPerformance())
    assert difference(ours, theirs) <= 1e-5
    assert difference(plain, theirs) > 1e-3


@pytest.mark.parametrize(
    "performance", [Performance(action=ACTION), Performance(action=ACTION, boost=RELEASED)]
)
def test_late_steps_are_not_boosted(model, twin, inputs, performance: Performance) -> None:
    ours, theirs = both(transferred(model, performance, 0.7), twin, inputs, LATE, CASES["both"][2])
    assert difference(ours, theirs) <= 1e-5


def test_two_in_a_row_join(model, twin, inputs) -> None:
    first = backend.transfer_action(model, Performance(action=ACTION), ADAPTER, 0.7)
    m = backend.transfer_action(first, Performance(action=OTHER, boost=EarlyBoost(strength=0.5)))
    slow = SlowPerformance(ACTION, ADAPTER, 0.7, boost=1.0, further=[SlowPerformance(OTHER, boost=0.5)])
    assert difference(*both(m, twin, inputs, EARLY, slow)) <= 1e-5
    assert difference(*both(first, twin, inputs, EARLY, CASES["paper"][2])) <= 1e-5  # and stays as it was


def test_a_converted_adapter_is_a_lora_for_comfyui(model, twin, inputs, tmp_path) -> None:
    import comfy.sd
    import comfy.utils

    from flash_pack.flash_modules.flexiact.ref_adapter_file import write_ref_adapter

    write_ref_adapter(tmp_path / "adapter.safetensors", ADAPTER)
    lora = comfy.utils.load_torch_file(str(tmp_path / "adapter.safetensors"))
    m, _ = comfy.sd.load_lora_for_models(backend.corrected(model), None, lora, 0.7, 0.0)
    assert difference(*both(m, twin, inputs, EARLY, CASES["adapter at 0.7"][2])) <= 1e-5


def kernels() -> list[str]:
    from comfy.ldm.modules import attention

    return ["basic", *attention.REGISTERED_ATTENTION_FUNCTIONS]


@pytest.mark.parametrize("name", kernels())
def test_every_kernel_of_comfyui_gives_the_same(model, twin, inputs, name: str) -> None:
    from comfy.ldm.modules import attention

    kernel = attention.attention_basic if name == "basic" else attention.get_attention_function(name)
    used = []

    def override(func, *args, **kwargs):
        used.append(func)
        return kernel(*args, **kwargs)

    m = transferred(model, CASES["paper"][0], 0.7)
    m.model_options["transformer_options"]["optimized_attention_override"] = override
    assert difference(*both(m, twin, inputs, EARLY, CASES["paper"][2])) <= 1e-5
    assert len(used) == LAYERS


@pytest.mark.parametrize("before", [True, False])
def test_another_override_goes_on_working(model, twin, inputs, before: bool) -> None:
    """One that halves the scores does so here too, and is told no scale, which many do not know."""

    def halve(func, q, k, v, *args, **kwargs):
        assert "scale" not in kwargs
        return func(q * 0.5, k, v, *args, **kwargs)

    def with_override(m):
        m = m.clone()
        m.model_options["transformer_options"]["optimized_attention_override"] = halve
        return m

    performance = CASES["tokens"][0]
    if before:
        m = transferred(with_override(model), performance, None)
    else:
        m = with_override(transferred(model, performance, None))
    for block in twin.transformer_blocks:
        block.attn1.norm_q.weight *= 0.5
        block.attn1.norm_q.bias *= 0.5
    try:
        assert difference(*both(m, twin, inputs, EARLY, CASES["tokens"][2])) <= 1e-5
    finally:
        for block in twin.transformer_blocks:
            block.attn1.norm_q.weight *= 2
            block.attn1.norm_q.bias *= 2


def test_skipped_blocks_are_told(model, inputs) -> None:
    m = transferred(model, CASES["tokens"][0], None)
    m.add_object_patch(
        "diffusion_model.blocks.1.forward",
        lambda hidden_states, encoder_hidden_states, **_: (hidden_states, encoder_hidden_states),
    )
    with pytest.raises(ValueError, match="2 of this model's 3 attentions ran, so another node leaves out or"):
        comfyui_velocity(m, inputs[0], inputs[1], EARLY, inputs[2])

"""What a forward takes, counted, against what it takes."""

import torch

from flash_pack.flash_modules.backends.diffusers.cogvideox import bytes_of, forward_bytes, forward_cost
from flash_pack.tests.backends.flexiact_oracle import small_inputs
from flash_pack.tests.backends.small_cogvideox import (
    HEADS,
    HEIGHT,
    LATENT_FRAMES,
    LAYERS,
    TEXT,
    TOKENS,
    WIDTH,
    WIDTH_LATENT,
    small_transformer,
)

SEQUENCE = TEXT + LATENT_FRAMES * HEIGHT * WIDTH_LATENT // 4


def test_tokens_cost_their_keys_and_values_and_scores() -> None:
    transformer = small_transformer()
    plain = forward_cost(transformer, boosted=False, tokens=0)
    acting = forward_cost(transformer, boosted=False, tokens=TOKENS)
    projections, scores = 2 * 2 * TOKENS * WIDTH**2, 2 * 2 * SEQUENCE * TOKENS * WIDTH
    assert acting.flops - plain.flops == LAYERS * (projections + scores)
    assert acting.peak_bytes > plain.peak_bytes


def test_a_boosted_step_has_heads_wider_by_8() -> None:
    transformer = small_transformer()
    acting, boosted = (forward_cost(transformer, boosted=on, tokens=TOKENS) for on in (False, True))
    assert boosted.flops - acting.flops == LAYERS * 2 * 2 * SEQUENCE * (SEQUENCE + TOKENS) * HEADS * 8


def test_counting_leaves_the_transformer_as_it_was() -> None:
    transformer, inputs = small_transformer(), small_inputs()
    with torch.inference_mode():
        before = inputs.velocity(transformer, 900)
        assert forward_bytes(transformer) > bytes_of(transformer)
        assert torch.equal(inputs.velocity(transformer, 900), before)


def test_bytes_are_those_of_the_weights() -> None:
    layer = torch.nn.Linear(3, 5)
    assert bytes_of(layer) == 4 * (15 + 5)
    assert bytes_of(layer.to(torch.bfloat16)) == 2 * (15 + 5)

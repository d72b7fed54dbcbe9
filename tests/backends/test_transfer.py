"""Actions and RefAdapter in diffusers' CogVideoX, against an oracle written from the method."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.cogvideox import add_transfer, guided_velocity
from flash_pack.flash_modules.backends.diffusers.cogvideox.guidance import predict_velocity
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.reweighting import RELEASED, EarlyBoost
from flash_pack.tests.backends.flexiact_oracle import Inputs, oracle, small_inputs
from flash_pack.tests.backends.small_cogvideox import (
    LAYERS,
    TEXT,
    WIDTH,
    D,
    small_action,
    small_adapter,
    small_transformer,
)

BOOSTED, FALLING, PLAIN = 900, 759, 500
"""Timesteps in which all, a part and nothing of the early boost is added."""


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return small_inputs()


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def _distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def _performed(boost: EarlyBoost, strength: float = 1.0) -> list[Performance]:
    return [Performance(action=small_action(), boost=boost, strength=strength)]


_JUMP = small_action(8, "jump", (LAYERS, 4, WIDTH))
CASES = {
    "base": ([], 0.0),
    "adapter whole": ([], 1.0),
    "adapter 0.7": ([], 0.7),
    "tokens": (_performed(RELEASED), 0.0),
    "both, as released": (_performed(RELEASED), 0.7),
    "both, boost 1": (_performed(EarlyBoost()), 0.7),
    "both, boost 0.5": (_performed(EarlyBoost(strength=0.5)), 0.7),
    "tokens at strength 0.3": (_performed(RELEASED, 0.3), 0.0),
    "tokens at strength 2, boosted": (_performed(EarlyBoost(), 2.0), 0.7),
    "two actions": (
        [
            *_performed(EarlyBoost(), 0.5),
            Performance(action=small_action(8, "jump", (LAYERS, 4, WIDTH)), boost=RELEASED),
        ],
        0.7,
    ),
}


@pytest.mark.parametrize("timestep", [BOOSTED, FALLING, PLAIN])
@pytest.mark.parametrize("case", CASES)
def test_a_forward_equals_the_method(case: str, timestep: int, inputs: Inputs) -> None:
    performances, strength = CASES[case]
    transformer = small_transformer()
    add_transfer(transformer, performances, small_adapter() if strength else None, strength)
    found = inputs.velocity(transformer, timestep)
    wanted = oracle(timestep, inputs, performances, small_adapter(), strength)
    assert _distance(found, wanted) < 1e-6


def test_a_forward_equals_the_method_on_the_true_grid() -> None:
    """226 + 17,550 tokens, 49 frames of 720 x 480; one narrow layer."""
    true = {
        "num_attention_heads": 1,
        "num_layers": 1,
        "sample_frames": 49,
        "sample_height": 60,
        "sample_width": 90,
        "max_text_seq_length": 226,
    }
    inputs = small_inputs((1, 13, 16, 60, 90), text=226)
    performances = [Performance(action=small_action(shape=(1, 226, D)))]
    transformer = small_transformer(**true)
    before = inputs.velocity(transformer, BOOSTED)
    add_transfer(transformer, performances)
    found, wanted = inputs.velocity(transformer, BOOSTED), oracle(BOOSTED, inputs, performances, **true)
    assert _distance(found, wanted) < 1e-6
    assert _distance(found, before) > 1e-4


@pytest.mark.parametrize(
    ("one", "other", "timestep"),
    [
        ("base", "adapter 0.7", PLAIN),
        ("adapter 0.7", "adapter whole", PLAIN),
        ("base", "tokens", PLAIN),
        ("tokens", "tokens at strength 0.3", PLAIN),
        ("both, as released", "both, boost 1", BOOSTED),
        ("both, boost 0.5", "both, boost 1", BOOSTED),
        ("both, as released", "both, boost 0.5", FALLING),
    ],
)
def test_what_is_compared_differs_by_far_more_than_the_tolerance(
    one: str, other: str, timestep: int, inputs: Inputs
) -> None:
    velocities = []
    for performances, strength in (CASES[one], CASES[other]):
        transformer = small_transformer()
        add_transfer(transformer, performances, small_adapter(), strength)
        velocities.append(inputs.velocity(transformer, timestep))
    assert _distance(*velocities) > 1e-3


def test_positions_of_text_count(inputs: Inputs) -> None:
    transformer = small_transformer()
    before = inputs.velocity(transformer, PLAIN)
    transformer.patch_embed.pos_embedding[:, :TEXT] = 0
    assert _distance(inputs.velocity(transformer, PLAIN), before) > 1e-3


def test_strength_0_is_the_base_bit_for_bit(inputs: Inputs) -> None:
    transformer = small_transformer()
    before = inputs.velocity(transformer, BOOSTED)
    add_transfer(transformer, [Performance(action=small_action(), strength=0)], small_adapter(), 0.0)
    assert torch.equal(inputs.velocity(transformer, BOOSTED), before)


def test_what_was_added_comes_out_again(inputs: Inputs) -> None:
    transformer = small_transformer()
    weights = {name: value.clone() for name, value in transformer.state_dict().items()}
    before = inputs.velocity(transformer, BOOSTED)
    remove = add_transfer(transformer, _performed(EarlyBoost()), small_adapter(), 0.7)
    inputs.velocity(transformer, BOOSTED)
    remove()
    assert torch.equal(inputs.velocity(transformer, BOOSTED), before)
    both = torch.tensor([BOOSTED, PLAIN])  # which an action refuses
    predict_velocity(transformer, inputs.latents_BFCHW, inputs.picture_BFCHW, both, inputs.text_embeds_BMC)
    assert all(torch.equal(value, weights[name]) for name, value in transformer.state_dict().items())


def test_keys_and_values_of_tokens_are_made_once(inputs: Inputs) -> None:
    transformer = small_transformer()
    add_transfer(transformer, _performed(EarlyBoost()))
    seen: list[tuple[int, ...]] = []
    to_k = transformer.transformer_blocks[0].attn1.to_k
    to_k.register_forward_hook(lambda layer, args, out: seen.append(tuple(out.shape)))
    for timestep in (BOOSTED, FALLING, PLAIN):
        inputs.velocity(transformer, timestep)
    assert sum(shape[0] == 1 for shape in seen) == 1  # the tokens'; the videos are two
    assert len(seen) == 4


def test_a_batch_equals_its_videos_one_by_one(inputs: Inputs) -> None:
    transformer = small_transformer()
    add_transfer(transformer, _performed(EarlyBoost()), small_adapter())
    together = inputs.velocity(transformer, BOOSTED)
    apart = [Inputs(*(x[i : i + 1] for x in inputs)).velocity(transformer, BOOSTED) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=1e-5)


def test_videos_at_several_timesteps_are_refused(inputs: Inputs) -> None:
    transformer = small_transformer()
    add_transfer(transformer, _performed(EarlyBoost()))
    with pytest.raises(ValueError, match="batch are at 2 timesteps"):
        predict_velocity(
            transformer,
            inputs.latents_BFCHW,
            inputs.picture_BFCHW,
            torch.tensor([1, 2]),
            inputs.text_embeds_BMC,
        )


def test_guidance_is_uncond_plus_cfg_times_the_difference(inputs: Inputs) -> None:
    transformer = small_transformer()
    add_transfer(transformer, _performed(EarlyBoost()), small_adapter())
    picture_1CHW = inputs.picture_BFCHW[0, :1]
    picture_BFCHW = torch.zeros_like(inputs.picture_BFCHW)
    picture_BFCHW[:, :1] = picture_1CHW
    same = Inputs(inputs.latents_BFCHW[:1].repeat(2, 1, 1, 1, 1), picture_BFCHW, inputs.text_embeds_BMC)
    cond, uncond = same.velocity(transformer, BOOSTED)
    prompts = inputs.text_embeds_BMC.split(1)
    predict = guided_velocity(transformer, picture_1CHW, *prompts, 6.0)
    found = predict(inputs.latents_BFCHW[0], BOOSTED)
    torch.testing.assert_close(found, uncond + 6 * (cond - uncond), atol=1e-4, rtol=1e-4)
    alone = guided_velocity(transformer, picture_1CHW, *prompts, 1.0)(inputs.latents_BFCHW[0], BOOSTED)
    torch.testing.assert_close(alone, cond, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 16, 8, 12), (3, 16, 8, 10), (3, 16, 10, 12), (3, 8, 8, 12)])
def test_videos_of_another_shape_are_refused(shape: tuple[int, ...], inputs: Inputs) -> None:
    latents = torch.randn(1, *shape)
    with pytest.raises(ValueError, match=r"make a video of 9 frames, 96 x 64"):
        Inputs(latents, latents, inputs.text_embeds_BMC[:1]).velocity(small_transformer(), PLAIN)


def test_files_for_another_model_are_refused() -> None:
    transformer = small_transformer(num_layers=2)
    with pytest.raises(ValueError, match="action 'crouch' is for 3 layers of width 48, and this model has 2"):
        add_transfer(transformer, _performed(EarlyBoost()))
    with pytest.raises(
        ValueError, match="RefAdapter 'adapter' is for 3 layers of width 48, and this model has 2"
    ):
        add_transfer(transformer, [], small_adapter())

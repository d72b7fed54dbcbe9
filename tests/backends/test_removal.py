"""Off is off: what was added to diffusers' U-Net is taken out again, and the U-Net is what it was."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.sd15 import (
    AnimatedUNet,
    add_action,
    add_cross_frame_attention,
    add_motion,
)
from flash_pack.flash_modules.backends.diffusers.sd15.train.alignment import add_alignment
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall
from flash_pack.tests.backends.small_models import TEXT_WIDTH, make_action, small_motion, small_unet

B, F, C, H, W, M = 2, 3, 4, 4, 6, 5

Add = Callable[[UNet2DConditionModel], AnimatedUNet]


def motion(version: str = "v3"):
    weights = small_motion(mid=version == "v2")
    return replace(weights, config=replace(weights.config, pool_resnet_norms=version == "v1"))


def learning(unet: UNet2DConditionModel, *, after_attention: bool = True) -> AnimatedUNet:
    model = add_cross_frame_attention(add_motion(unet, motion()))
    add_alignment(model, AlignmentConfig(after_attention=after_attention), checkpointing="all")
    return model


EFFECTS: dict[str, Add] = {
    "motion v1": lambda unet: add_motion(unet, motion("v1")),
    "motion v2": lambda unet: add_motion(unet, motion("v2")),
    "cross-frame attention": lambda unet: add_cross_frame_attention(add_motion(unet, motion())),
    "an action": lambda unet: add_action(unet, motion(), make_action(motion()), 0.7),
    "alignment after each attention": learning,
    "alignment after each module": partial(learning, after_attention=False),
}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(unet: UNet2DConditionModel) -> Tensor:
    """Frames without any video, as any program runs a U-Net."""
    timestep = torch.tensor([500] * B * F)
    return unet(random(B * F, C, H, W, seed=1), timestep, random(B * F, M, TEXT_WIDTH, seed=2)).sample


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return random(B, F, C, H, W, seed=3), torch.tensor([500] * B), random(B, M, TEXT_WIDTH, seed=4)


@torch.no_grad()
def predict(model: AnimatedUNet) -> Tensor:
    return model.predict(*inputs())


def hooks(unet: UNet2DConditionModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in unet.modules())


@pytest.mark.parametrize("name", EFFECTS)
def test_the_unet_is_bit_for_bit_what_it_was(name: str) -> None:
    unet = small_unet()
    before, weights = run(unet), copy.deepcopy(unet.state_dict())
    processors, attributes = unet.attn_processors, set(vars(unet))
    model = EFFECTS[name](unet)
    animated = predict(model)
    assert hooks(unet)
    model.remove()
    assert not hooks(unet)
    assert torch.equal(run(unet), before)
    assert all(torch.equal(weight, weights[key]) for key, weight in unet.state_dict().items())
    assert all(unet.attn_processors[key] is processor for key, processor in processors.items())
    assert set(vars(unet)) == attributes
    assert not unet.is_gradient_checkpointing
    assert torch.equal(predict(EFFECTS[name](unet)), animated)  # and it goes in again


def test_alignment_alone_is_taken_out_and_goes_in_again() -> None:
    model = add_cross_frame_attention(add_motion(small_unet(), motion()))
    plain, config = predict(model), AlignmentConfig()
    call = VideoCall(num_pairs=B // 2, swaps_L=torch.ones(6, dtype=torch.bool))
    processors, ends = model.unet.attn_processors, []
    for _ in range(2):
        aligned = add_alignment(model, config, checkpointing="motion")
        with torch.no_grad():
            ends.append(aligned(*inputs(), call))
        assert aligned.remove() is model
        assert torch.equal(predict(model), plain)
        assert all(model.unet.attn_processors[key] is processor for key, processor in processors.items())
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], plain)


def test_an_action_is_taken_out_of_a_unet_that_was_moved() -> None:
    unet = small_unet()
    expected = small_unet().to(torch.bfloat16).state_dict()
    model = add_action(unet, motion(), make_action(motion()))
    model.to(torch.bfloat16)
    model.remove()
    assert all(torch.equal(weight, expected[key]) for key, weight in unet.state_dict().items())

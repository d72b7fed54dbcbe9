"""A small U-Net that learns from pairs, what it is shown, and what it learns."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from flash_pack.flash_modules.backends.diffusers.sd15 import (
    AnimatedUNet,
    add_cross_frame_attention,
    add_motion,
)
from flash_pack.flash_modules.backends.diffusers.sd15.train.alignment import AlignedUNet, add_alignment
from flash_pack.flash_modules.backends.diffusers.sd15.train.trainable import select_trainable
from flash_pack.flash_modules.flash.motion_alignment import AlignmentConfig, VideoCall
from flash_pack.flash_modules.flash.training.loss import denoising_losses, total_loss
from flash_pack.flash_modules.flash.training.noise_law import DiffusionNoise
from flash_pack.tests.backends.small_models import TEXT_WIDTH, small_motion, small_unet

P, F, M, H, W = 2, 4, 5, 2, 4
noise_losses = partial(denoising_losses, law=DiffusionNoise("epsilon"))
OFF = AlignmentConfig(tau=100.0, p=0.0)
FEATURES = AlignmentConfig(p=0.0)
CORRESPONDENCE = AlignmentConfig(tau=100.0)
BOTH = AlignmentConfig()


def animated(**kind: bool) -> AnimatedUNet:
    return copy.deepcopy(_animated(**kind))


@cache
def _animated(*, version_1: bool = False, mid: bool = False) -> AnimatedUNet:
    motion = small_motion(mid=mid)
    motion = replace(motion, config=replace(motion.config, pool_resnet_norms=version_1))
    return add_cross_frame_attention(add_motion(small_unet(), motion))


@cache
def aligned(config: AlignmentConfig, checkpointing: str = "none", **kind: bool) -> AlignedUNet:
    """One model for all tests that leave it as it is."""
    return add_alignment(animated(**kind), config, checkpointing=checkpointing)


@cache
@torch.no_grad()
def plain(*, mid: bool = False) -> Tensor:
    """What comes without alignment."""
    return animated(mid=mid).predict(*inputs())


@cache
def inputs(num_frames: int = F, videos: int = 2 * P, seed: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents_BFCHW = torch.randn(videos, num_frames, 4, H, W, generator=generator)
    timestep_B = torch.tensor([961, 41] * (videos // 2) + [500] * (videos % 2))
    return latents_BFCHW, timestep_B, torch.randn(videos, M, TEXT_WIDTH, generator=generator)


NUM_LAYERS = 6
"""Cross-frame attentions of the small U-Net."""


def pair_call(swapped: int | list[int] = 3, num_pairs: int = P) -> VideoCall:
    layers = range(swapped) if isinstance(swapped, int) else swapped
    swaps_L = torch.tensor([i in layers for i in range(NUM_LAYERS)])
    return VideoCall(num_pairs=num_pairs, swaps_L=swaps_L)


@torch.no_grad()
def run(model: AlignedUNet, call: VideoCall | None) -> Tensor:
    return model(*inputs(), call)


def difference(out: Tensor, expected: Tensor) -> float:
    return float((out - expected).norm() / expected.norm())


Gradients = dict[str, Tensor]


def learn(
    model: AlignedUNet, call: VideoCall, trainable: str = "attention", between: Callable[[], object] = int
) -> Gradients:
    """Gradients of the weights that learn; `between` runs before the backward pass."""
    weights = select_trainable(model.model, trainable)
    model.zero_grad()
    latents, timestep, text = inputs()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    loss = total_loss(noise_losses(model, latents, noise, timestep[:P], text[:P], call))
    between()
    loss.backward()
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


@cache
def unchecked(config: AlignmentConfig, *, version_1: bool = False) -> Gradients:
    """Gradients without checkpointing."""
    return learn(aligned(config, version_1=version_1), pair_call([0, 3, 4]))


def assert_same(found: Gradients, expected: Gradients) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert difference(found[name], expected[name]) <= 1e-6, name

"""FlexiAct as the paper describes it, on diffusers' CogVideoX: slow, and without anything of ours.

The sequence is [text | motion | video] with motion queries, a dense mask, and low-rank layers beside the
projections.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import apply_rotary_emb
from einops import rearrange
from torch import Tensor
from torch.nn.functional import linear

from flash_pack.flash_modules.backends.diffusers.cogvideox.guidance import predict_velocity
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.ref_adapter_file import RefAdapter
from flash_pack.flash_modules.flexiact.reweighting import EarlyBoost
from flash_pack.tests.backends.small_cogvideox import (
    HEIGHT,
    LATENT_FRAMES,
    TEXT,
    TEXT_WIDTH,
    WIDTH_LATENT,
    small_transformer,
)

_ROWS = 2048
"""Queries at a time: all scores of a whole video would take gigabytes."""


class Inputs(NamedTuple):
    latents_BFCHW: Tensor
    picture_BFCHW: Tensor
    text_embeds_BMC: Tensor

    def velocity(self, transformer: CogVideoXTransformer3DModel, timestep: int) -> Tensor:
        timestep_B = torch.full((len(self.latents_BFCHW),), timestep)
        return predict_velocity(
            transformer, self.latents_BFCHW, self.picture_BFCHW, timestep_B, self.text_embeds_BMC
        )


def small_inputs(
    shape: tuple[int, ...] = (2, LATENT_FRAMES, 16, HEIGHT, WIDTH_LATENT), text: int = TEXT
) -> Inputs:
    """Two videos, pictures and prompts; or others of a shape (B, F, C, H, W)."""
    generator = torch.Generator().manual_seed(11)
    return Inputs(
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
        torch.randn(shape[0], text, TEXT_WIDTH, generator=generator),
    )


class OracleAttention:
    """One layer as the paper has it."""

    def __init__(
        self, layer: int, tokens_MC: Tensor, bias_text: Tensor, bias_video: Tensor, low_rank: Callable
    ) -> None:
        self.layer, self.tokens_MC, self.low_rank = layer, tokens_MC, low_rank
        self.bias_text_M, self.bias_video_M = bias_text, bias_video

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: None,
        image_rotary_emb: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        text, motion = encoder_hidden_states.shape[1], len(self.tokens_MC)
        motion_BMC = self.tokens_MC.expand(len(hidden_states), -1, -1)
        tokens_BNC = torch.cat([encoder_hidden_states, motion_BMC, hidden_states], dim=1)
        q, k, v = (
            rearrange(self.project(attn, part, tokens_BNC), "b n (heads d) -> b heads n d", heads=attn.heads)
            for part in ("q", "k", "v")
        )
        q, k = attn.norm_q(q), attn.norm_k(k)
        start = text + motion
        q, k = (
            torch.cat([x[:, :, :start], apply_rotary_emb(x[:, :, start:], image_rotary_emb)], 2)
            for x in (q, k)
        )
        mask_NN = torch.zeros(q.shape[2], q.shape[2])
        mask_NN[:text, text:start] = self.bias_text_M
        mask_NN[start:, text:start] = self.bias_video_M
        rows = zip(q.split(_ROWS, dim=2), mask_NN.split(_ROWS), strict=True)
        out = torch.cat([((q @ k.mT / math.sqrt(q.shape[-1])) + mask).softmax(-1) @ v for q, mask in rows], 2)
        out_BNC = self.project(attn, "out", rearrange(out, "b heads n d -> b n (heads d)"))
        return out_BNC[:, start:], out_BNC[:, :text]

    def project(self, attn: Attention, part: str, x: Tensor) -> Tensor:
        layer = attn.to_out[0] if part == "out" else getattr(attn, f"to_{part}")
        return layer(x) + self.low_rank(self.layer, part, x)


def oracle(
    timestep: int,
    inputs: Inputs,
    performances: list[Performance],
    adapter: RefAdapter | None = None,
    strength: float = 0.0,
    **changes: object,
) -> Tensor:
    """What the method says, for any strength of the tokens above 0; `changes` are the small transformer's."""

    def low_rank(layer: int, part: str, x: Tensor) -> Tensor | float:
        if adapter is None:
            return 0.0
        pair = adapter.parts[layer, part]
        return strength * pair.alpha / len(pair.down_RC) * linear(linear(x, pair.down_RC), pair.up_CR)

    counts = [each.action.tokens_LMC.shape[1] for each in performances]
    strengths = [math.log(each.strength) for each in performances]
    boosts = [_boost(each.boost, timestep) for each in performances]
    bias_text = torch.tensor([w for w, n in zip(strengths, counts, strict=True) for _ in range(n)])
    bias_video = torch.tensor(
        [w + s for w, s, n in zip(strengths, boosts, counts, strict=True) for _ in range(n)]
    )
    transformer = small_transformer(**changes)
    for layer, block in enumerate(transformer.transformer_blocks):
        rows = [row for each in performances for row in each.action.tokens_LMC[layer]]
        tokens_MC = torch.stack(rows) if rows else torch.zeros(0, block.attn1.to_q.in_features)
        block.attn1.set_processor(OracleAttention(layer, tokens_MC, bias_text, bias_video, low_rank))
    return inputs.velocity(transformer, timestep)


def _boost(boost: EarlyBoost, timestep: int) -> float:
    """The paper's s(t)."""
    if timestep >= boost.full:
        return boost.strength
    if timestep > boost.none:
        phase = math.pi / (boost.none - boost.full) * (timestep - boost.full)
        return boost.strength / 2 * (math.cos(phase) + 1)
    return 0.0

"""AnimateDiff's temporal transformer (arXiv:2307.04725), one implementation for every host.

Names of modules and weights are those of AnimateDiff's files. Numerics are those of the published code:
GroupNorm per frame with eps 1e-6, exact GELU, sinusoidal positions recomputed in fp32 and added after the
LayerNorm and before q, k and v. Only v1 also changes norms of the U-Net around the modules.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu

from ..attention import Attend, attend


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Layout of a motion model: channels of each module, by level of the U-Net."""

    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    mid: tuple[int, ...] = ()
    num_blocks: int = 1
    """Transformer blocks of a module."""
    num_attentions: int = 2
    """Temporal attentions of a block."""
    num_heads: int = 8
    max_frames: int = 32
    """Positions that the motion was trained with."""
    pool_resnet_norms: bool = False
    """AnimateDiff v1: ResNet and output norms of the U-Net take one mean and spread for all frames."""

    def places(self) -> Iterator[tuple[str, int]]:
        """Names of all modules, as in AnimateDiff's files, with their channels."""
        for side, levels in (("down_blocks", self.down), ("up_blocks", self.up)):
            for level, widths in enumerate(levels):
                for j, channels in enumerate(widths):
                    yield f"{side}.{level}.motion_modules.{j}", channels
        for j, channels in enumerate(self.mid):
            yield f"mid_block.motion_modules.{j}", channels


def check_widths(config: MotionConfig, unet_widths: Mapping[str, int]) -> None:
    """Raise ValueError unless the motion was made for a U-Net with these channels, by `places`' names.

    The U-Net's middle block may stay without a module.
    """
    wanted = dict(config.places())
    found = {name: n for name, n in unet_widths.items() if config.mid or not name.startswith("mid_block")}
    if found != wanted:
        raise ValueError(
            f"This motion module does not fit the checkpoint: it was made for a U-Net with the widths "
            f"{_describe(wanted)}, and the checkpoint's U-Net has {_describe(found)}. Load the motion module "
            "that belongs to this kind of checkpoint."
        )


def check_num_frames(config: MotionConfig, num_frames: int) -> None:
    """Raise ValueError if there are more frames than the motion knows."""
    if num_frames > config.max_frames:
        raise ValueError(
            f"The video has {num_frames} frames, but this motion was trained with up to {config.max_frames}: "
            f"lower the number of frames to {config.max_frames} or less."
        )


def pooled_norm(norm: nn.Module, features_XCHW: Tensor, num_frames: int) -> Tensor:
    """GroupNorm with one mean and spread for all frames of a video, as in AnimateDiff v1's ResNets."""
    return unstack_frames(norm(stack_frames(features_XCHW, num_frames)), num_frames)


def stack_frames(features_XCHW: Tensor, num_frames: int) -> Tensor:
    """The frames of each video below each other in one tall picture (B, C, F*H, W)."""
    return rearrange(features_XCHW, "(b f) c h w -> b c (f h) w", f=num_frames)


def unstack_frames(stacked_BCHW: Tensor, num_frames: int) -> Tensor:
    """The inverse of `stack_frames`."""
    return rearrange(stacked_BCHW, "b c (f h) w -> (b f) c h w", f=num_frames)


def _describe(widths: Mapping[str, int]) -> str:
    levels = dict.fromkeys(name.split(".motion_modules")[0] for name in widths if name.startswith("down"))
    return ", ".join(str(widths[f"{level}.motion_modules.0"]) for level in levels)


class MotionModel(nn.Module):
    """All motion modules of a U-Net, found by the names that `MotionConfig.places` lists.

    `operations` offers Linear, LayerNorm and GroupNorm (torch.nn, or the host's own layers);
    `attend` is the attention kernel.
    """

    def __init__(
        self,
        config: MotionConfig,
        *,
        operations: Any = nn,
        attend: Attend = attend,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        layers = _Layers(config, operations, attend, {"dtype": dtype, "device": device})
        self.down_blocks = nn.ModuleList(_Level(widths, layers) for widths in config.down)
        self.up_blocks = nn.ModuleList(_Level(widths, layers) for widths in config.up)
        if config.mid:
            self.mid_block = _Level(config.mid, layers)


@dataclass(frozen=True)
class _Layers:
    """What every part of a motion model is built from."""

    config: MotionConfig
    operations: Any
    attend: Attend
    placed: dict[str, Any]

    def linear(self, c_in: int, c_out: int, *, bias: bool = True) -> nn.Module:
        layer: nn.Module = self.operations.Linear(c_in, c_out, bias=bias, **self.placed)
        return layer

    def layer_norm(self, channels: int) -> nn.Module:
        layer: nn.Module = self.operations.LayerNorm(channels, **self.placed)
        return layer

    def group_norm(self, channels: int) -> nn.Module:
        layer: nn.Module = self.operations.GroupNorm(32, channels, eps=1e-6, affine=True, **self.placed)
        return layer


class _Level(nn.Module):
    def __init__(self, widths: tuple[int, ...], layers: _Layers) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList(MotionModule(channels, layers) for channels in widths)


class MotionModule(nn.Module):
    """One place of the U-Net: adds what the temporal transformer finds to the features."""

    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, layers)

    def forward(self, features_XCHW: Tensor, num_frames: int) -> Tensor:
        motion: Tensor = self.temporal_transformer(features_XCHW, num_frames)
        return features_XCHW + motion


class TemporalTransformer(nn.Module):
    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.norm = layers.group_norm(channels)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, layers) for _ in range(layers.config.num_blocks)
        )
        self.proj_out = layers.linear(channels, channels)

    def forward(self, features_XCHW: Tensor, num_frames: int) -> Tensor:
        height = features_XCHW.shape[-2]
        tokens_YFC = rearrange(self.norm(features_XCHW), "(b f) c h w -> (b h w) f c", f=num_frames)
        tokens_YFC = self.proj_in(tokens_YFC)
        for block in self.transformer_blocks:
            tokens_YFC = block(tokens_YFC)
        width = features_XCHW.shape[-1]
        tokens_YFC = self.proj_out(tokens_YFC)
        motion_XCHW: Tensor = rearrange(tokens_YFC, "(b h w) f c -> (b f) c h w", h=height, w=width)
        return motion_XCHW


class TemporalBlock(nn.Module):
    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        count = layers.config.num_attentions
        self.attention_blocks = nn.ModuleList(TemporalAttention(channels, layers) for _ in range(count))
        self.norms = nn.ModuleList(layers.layer_norm(channels) for _ in range(count))
        self.ff = FeedForward(channels, layers)
        self.ff_norm = layers.layer_norm(channels)

    def forward(self, tokens_YFC: Tensor) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            tokens_YFC = tokens_YFC + attention(norm(tokens_YFC))
        tokens_YFC = tokens_YFC + self.ff(self.ff_norm(tokens_YFC))
        return tokens_YFC


class TemporalAttention(nn.Module):
    """Self-attention of each pixel over time."""

    positions_FC: Tensor

    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.num_heads = layers.config.num_heads
        self.attend = layers.attend
        self.to_q = layers.linear(channels, channels, bias=False)
        self.to_k = layers.linear(channels, channels, bias=False)
        self.to_v = layers.linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([layers.linear(channels, channels)])
        positions_FC = sinusoidal_positions(layers.config.max_frames, channels)
        self.register_buffer("positions_FC", positions_FC, persistent=False)

    def forward(self, tokens_YFC: Tensor) -> Tensor:
        positions_FC = self.positions_FC[: tokens_YFC.shape[1]].to(tokens_YFC)  # may be offloaded
        tokens_YFC = tokens_YFC + positions_FC
        q, k, v = self.to_q(tokens_YFC), self.to_k(tokens_YFC), self.to_v(tokens_YFC)
        out_YFC: Tensor = self.to_out[0](self.attend(q, k, v, self.num_heads))
        return out_YFC


class FeedForward(nn.Module):
    """GEGLU (arXiv:2002.05202), four times as wide inside."""

    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            [GEGLU(channels, layers), nn.Identity(), layers.linear(4 * channels, channels)]
        )

    def forward(self, tokens_YFC: Tensor) -> Tensor:
        for layer in self.net:
            tokens_YFC = layer(tokens_YFC)
        return tokens_YFC


class GEGLU(nn.Module):
    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.proj = layers.linear(channels, 8 * channels)

    def forward(self, tokens_YFC: Tensor) -> Tensor:
        value, gate = self.proj(tokens_YFC).chunk(2, dim=-1)
        out: Tensor = gelu(gate)
        return out * value if torch.is_grad_enabled() else out.mul_(value)  # the backward pass reads `out`


def sinusoidal_positions(num_frames: int, channels: int) -> Tensor:
    """Positional encoding (F, C) of arXiv:1706.03762, section 3.5, in fp32: sine and cosine alternate."""
    frames_F1 = torch.arange(num_frames).unsqueeze(1)
    frequencies = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    positions_FC = torch.zeros(num_frames, channels)
    positions_FC[:, 0::2] = torch.sin(frames_F1 * frequencies)
    positions_FC[:, 1::2] = torch.cos(frames_F1 * frequencies)
    return positions_FC

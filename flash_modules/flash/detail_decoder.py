"""FLASH's Detail Enhancement Decoder (arXiv:2503.00276, 3.3 and A2.3), one implementation for every host.

It adds layers to a VAE's decoder that bring details of the reference picture into each frame. Levels count
from 0, the picture's own size, to the size of the latent; level l joins what the decoder has after the
blocks of that size with what the encoder has of the reference after its blocks of the same size:

    level   size (of a 512 picture)   decoder, after the blocks of     encoder, after the blocks of
    0       512                       decoder.up.0, 128 channels       encoder.down.0, 128 channels
    1       256                       decoder.up.1, 256 channels       encoder.down.1, 256 channels
    2       128                       decoder.up.2, 512 channels       encoder.down.2, 512 channels
    3        64                       decoder.up.3, 512 channels       encoder.down.3, 512 channels

Not in the paper: pixels and latents themselves are no levels, for they hold nothing that these do not.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, grid_sample, interpolate, pad, silu

from ..attention import Attend, attend


@dataclass(frozen=True, kw_only=True)
class DetailDecoderConfig:
    """Layout of a detail decoder. Not in the paper: all but the patch size and the number of convolutions."""

    channels: tuple[int, ...]
    """Of the VAE's features, from level 0 on; the encoder has the decoder's."""
    width: int = 64
    """Channels inside the branches."""
    patch_size: int = 2
    """Pixels on a side of what attention takes for one token."""
    max_keys: int = 64
    """Tokens on a side that attention looks at; a larger reference is averaged down to it. So attention costs
    at most 4,096 keys for each query, where a 512 picture would have 65,536 at level 0."""
    warping: bool = True
    attention: bool = True
    """Branches; without both, nothing is added."""

    def __post_init__(self) -> None:
        ranges = {"width": 1024, "patch_size": 8, "max_keys": 1024}
        counts = [*self.channels, *(getattr(self, name) for name in ranges)]
        switches = (self.warping, self.attention)
        if not all(type(n) is int for n in counts) or not all(type(switch) is bool for switch in switches):
            raise TypeError(
                "A detail decoder's layout is told in whole numbers, its branches as true or false."
            )
        if not 1 <= len(self.channels) <= 8 or not all(1 <= c <= 4096 for c in self.channels):
            raise ValueError(f"`channels` must be 1 to 4096 for each of 1 to 8 levels, not {self.channels}.")
        for name, most in ranges.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"`{name}` must lie between 1 and {most}, but it is {getattr(self, name)}.")


class DetailDecoder(nn.Module):
    """The added layers of all levels. `operations` offers Linear and Conv2d (torch.nn, or the host's own)."""

    def __init__(
        self,
        config: DetailDecoderConfig,
        *,
        operations: Any = nn,
        attend: Attend = attend,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        layers = _Layers(operations, attend, {"dtype": dtype, "device": device})
        self.levels = nn.ModuleList(DetailLevel(channels, config, layers) for channels in config.channels)

    def enhance(self, level: int, h_FCHW: Tensor, g_1CHW: Tensor, strength: float = 1.0) -> Tensor:
        """What the decoder has at this level, with details of the reference added."""
        if not math.isfinite(strength):
            raise ValueError(f"The strength of details must be a number, but it is {strength}: 1 is all.")
        if strength == 0.0 or not (self.config.warping or self.config.attention):
            return h_FCHW
        enhanced_FCHW: Tensor = self.levels[level](h_FCHW, g_1CHW, strength)
        return enhanced_FCHW


@dataclass(frozen=True)
class _Layers:
    """What every part is built from."""

    operations: Any
    attend: Attend
    placed: dict[str, Any]

    def linear(self, c_in: int, c_out: int) -> nn.Module:
        layer: nn.Module = self.operations.Linear(c_in, c_out, **self.placed)
        return layer

    def conv(self, c_in: int, c_out: int, *, bias: bool = True) -> nn.Module:
        layer: nn.Module = self.operations.Conv2d(c_in, c_out, 3, padding=1, bias=bias, **self.placed)
        return layer


class DetailLevel(nn.Module):
    """h + strength w (warped + attended), where w is the fusion's.

    It starts with details that are the reference itself at each pixel: `proj` changes nothing, displacements
    and attended patches are 0. Not in the paper; random details, measured on actors, cost hundreds of steps
    until they do no harm. Only attention without warping starts with them: w = 0 times details of 0 would
    leave both without a gradient forever.
    """

    def __init__(self, channels: int, config: DetailDecoderConfig, layers: _Layers) -> None:
        super().__init__()
        self.proj = layers.linear(channels, channels)
        _zero(self.proj)
        self.proj.get_parameter("weight").data.fill_diagonal_(1.0)
        self.warp = WarpingBranch(channels, config.width, layers) if config.warping else None
        self.attn = PatchAttentionBranch(channels, config, layers) if config.attention else None
        if self.warp and self.attn:
            _zero(self.attn.to_out)
        self.fuse = Fusion(channels, config.width, layers)

    def forward(self, h_FCHW: Tensor, g_1CHW: Tensor, strength: float) -> Tensor:
        if g_1CHW.shape[-2:] != h_FCHW.shape[-2:]:
            g_1CHW = interpolate(g_1CHW, h_FCHW.shape[-2:], mode="bilinear", antialias=True)
        g_1CHW = rearrange(self.proj(rearrange(g_1CHW, "b c h w -> b h w c")), "b h w c -> b c h w")
        found = [branch(h_FCHW, g_1CHW) for branch in (self.warp, self.attn) if branch is not None]
        details_FCHW: Tensor = sum(found[1:], found[0])
        enhanced_FCHW: Tensor = h_FCHW + strength * self.fuse(h_FCHW, g_1CHW) * details_FCHW
        return enhanced_FCHW


class PairConv(nn.Module):
    """A 3x3 convolution of [h, g] along the channels, where g is one picture for all frames.

    It is the sum of a convolution of h and one of g, so that g is not convolved anew for every frame.
    """

    def __init__(self, channels: int, c_out: int, layers: _Layers) -> None:
        super().__init__()
        self.frame, self.reference = layers.conv(channels, c_out), layers.conv(channels, c_out, bias=False)

    def forward(self, h_FCHW: Tensor, g_1CHW: Tensor) -> Tensor:
        both_FCHW: Tensor = self.frame(h_FCHW) + self.reference(g_1CHW)
        return both_FCHW


class WarpingBranch(nn.Module):
    """Details from nearby: four convolutions find for each pixel where in the reference to look."""

    def __init__(self, channels: int, width: int, layers: _Layers) -> None:
        super().__init__()
        self.pair = PairConv(channels, width, layers)
        self.convs = nn.ModuleList(layers.conv(width, c_out) for c_out in (width, width, 2))
        _zero(self.convs[-1])

    def forward(self, h_FCHW: Tensor, g_1CHW: Tensor) -> Tensor:
        return warp(g_1CHW.expand(len(h_FCHW), -1, -1, -1), self.displacements(h_FCHW, g_1CHW))

    def displacements(self, h_FCHW: Tensor, g_1CHW: Tensor) -> Tensor:
        """(F, 2, H, W): pixels of this level, x to the right and y down; 0 at the start."""
        found: Tensor = self.pair(h_FCHW, g_1CHW)
        for conv in self.convs:
            found = conv(silu(found))
        return found


class PatchAttentionBranch(nn.Module):
    """Details from anywhere: patches of a frame ask patches of the reference.

    A linear layer turns what they get into the pixels of a patch; patches then lie side by side as before.
    """

    def __init__(self, channels: int, config: DetailDecoderConfig, layers: _Layers) -> None:
        super().__init__()
        self.patch_size, self.max_keys, self.attend = config.patch_size, config.max_keys, layers.attend
        pixels = channels * config.patch_size**2
        self.to_q, self.to_k, self.to_v = (layers.linear(pixels, config.width) for _ in range(3))
        self.to_out = layers.linear(config.width, pixels)

    def forward(self, h_FCHW: Tensor, g_1CHW: Tensor) -> Tensor:
        side = self.max_keys * self.patch_size
        if max(g_1CHW.shape[-2:]) > side:
            height, width = g_1CHW.shape[-2:]
            g_1CHW = adaptive_avg_pool2d(g_1CHW, (min(side, height), min(side, width)))
        tokens_FNC, tokens_1MC = (_to_patches(x, self.patch_size) for x in (h_FCHW, g_1CHW))
        k_FMC, v_FMC = (project(tokens_1MC).expand(len(h_FCHW), -1, -1) for project in (self.to_k, self.to_v))
        found_FNC = self.to_out(self.attend(self.to_q(tokens_FNC), k_FMC, v_FMC, 1))
        return _from_patches(found_FNC, self.patch_size, *h_FCHW.shape[-2:])


def _to_patches(features_FCHW: Tensor, size: int) -> Tensor:
    """Each patch's pixels as one token. Where the last patch is not full, the border is repeated."""
    height, width = features_FCHW.shape[-2:]
    filled_FCHW = pad(features_FCHW, (0, -width % size, 0, -height % size), mode="replicate")
    tokens_FNC: Tensor = rearrange(filled_FCHW, "f c (h p) (w q) -> f (h w) (c p q)", p=size, q=size)
    return tokens_FNC


def _from_patches(tokens_FNC: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `_to_patches`."""
    rows = -(-height // size)
    filled_FCHW = rearrange(tokens_FNC, "f (h w) (c p q) -> f c (h p) (w q)", h=rows, p=size, q=size)
    features_FCHW: Tensor = filled_FCHW[..., :height, :width]
    return features_FCHW


class Fusion(nn.Module):
    """Weights of the details, one for each channel of each pixel; no sigmoid, and 0 at the start."""

    def __init__(self, channels: int, width: int, layers: _Layers) -> None:
        super().__init__()
        self.pair, self.conv = PairConv(channels, width, layers), layers.conv(width, channels)
        _zero(self.conv)

    def forward(self, h_FCHW: Tensor, g_1CHW: Tensor) -> Tensor:
        weights_FCHW: Tensor = self.conv(silu(self.pair(h_FCHW, g_1CHW)))
        return weights_FCHW


def _zero(layer: nn.Module) -> None:
    for weight in layer.parameters():
        weight.data.zero_()


def warp(features_FCHW: Tensor, displacements_F2HW: Tensor) -> Tensor:
    """What lies this many pixels away (x to the right, y down), bilinear; beyond the border is the border."""
    height, width = features_FCHW.shape[-2:]
    y, x = (torch.arange(size, device=features_FCHW.device) for size in (height, width))
    here_2HW = torch.stack(torch.meshgrid(x, y, indexing="xy"))
    size_211 = torch.tensor([width, height], device=features_FCHW.device).view(2, 1, 1)
    exact = torch.promote_types(displacements_F2HW.dtype, torch.float32)  # fp16 knows no place in 512 pixels
    places_F2HW = (2 * (here_2HW + displacements_F2HW.to(exact)) + 1) / size_211 - 1
    grid_FHW2 = rearrange(places_F2HW, "f two h w -> f h w two")
    warped_FCHW = grid_sample(features_FCHW.to(exact), grid_FHW2, padding_mode="border", align_corners=False)
    return warped_FCHW.to(features_FCHW.dtype)

"""Action tokens (FAE) at work: keys and values that every attention reads beside its own.

FlexiAct (arXiv:2505.03730) appends 226 learned tokens to the text at every layer's attention. They have
no position, pass through no AdaLN, and what they become is thrown away after the layer; so all that is left
of them is a prefix of keys and values, which depends neither on the video, the timestep nor the prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

Layer = Callable[[Tensor], Tensor]
Kernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""``kernel(q, k, v, scale) -> out``, all (B, N or M, heads, D), scale what scores are multiplied by."""

_WIDENING = 8
"""Channels that are added to a head: fused kernels want multiples of 8. Two of them are used."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """What one layer's attention reads beside its own."""

    k: Tensor
    """(1, M, heads, D), normed."""
    v: Tensor
    """(1, M, heads, D)."""

    def to(self, like: Tensor) -> "Prefix":
        """The same on another tensor's device and in its dtype."""
        return Prefix(k=self.k.to(like), v=self.v.to(like))


def layer_prefix(tokens_MC: Tensor, to_k: Layer, to_v: Layer, norm_k: Layer, num_heads: int) -> Prefix:
    """The prefix that tokens are for a layer: norm_k(to_k(tokens)), to_v(tokens), without positions.

    Zero tokens are something, too: the biases make keys and values.
    """
    k, v = (
        rearrange(project(tokens_MC[None]), "b m (heads d) -> b m heads d", heads=num_heads)
        for project in (to_k, to_v)
    )
    return Prefix(k=norm_k(k), v=v)


def attend_with_prefix(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix: Prefix,
    biases_M2: Tensor | None,
    num_text: int,
    kernel: Kernel,
) -> Tensor:
    """Attention (B, N, heads, D) of a layer whose queries read the prefix, too.

    q, k and v are (B, N, heads, D), the first `num_text` tokens those of the text. `biases_M2` is added to
    the scores on the prefix, column 0 for all queries and column 1 for those of the video only; None is zero.
    """
    batch, _, _, channels = k.shape
    prefix = prefix.to(k)
    k_all = torch.cat([k, repeat(prefix.k, "1 m heads d -> b m heads d", b=batch)], dim=1)
    v_all = torch.cat([v, repeat(prefix.v, "1 m heads d -> b m heads d", b=batch)], dim=1)
    scale = channels**-0.5
    if biases_M2 is None:
        return kernel(q, k_all, v_all, scale)
    out = kernel(_wide_queries(q, num_text), _wide_keys(k_all, biases_M2 / scale), _wide(v_all), scale)
    return out[..., :channels]


def _wide(values: Tensor) -> Tensor:
    return pad(values, (0, _WIDENING))


def _wide_queries(q: Tensor, num_text: int) -> Tensor:
    """Queries with two more channels: 1 for all, and 1 for those of the video.

    With the keys' channels the scores grow by the biases, exactly and without a mask, which would take
    0.6 GiB and most fused kernels with it.
    """
    wide, channels = _wide(q), q.shape[-1]
    wide[..., channels] = 1
    wide[:, num_text:, :, channels + 1] = 1
    return wide


def _wide_keys(k: Tensor, extra_M2: Tensor) -> Tensor:
    wide, channels, num_keys = _wide(k), k.shape[-1], len(extra_M2)
    wide[:, -num_keys:, :, channels : channels + 2] = rearrange(extra_M2, "m e -> 1 m 1 e").to(k)
    return wide


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """torch's own attention, as a `Kernel`."""
    q, k, v = (rearrange(x, "b n heads d -> b heads n d") for x in (q, k, v))
    return rearrange(scaled_dot_product_attention(q, k, v, scale=scale), "b heads n d -> b n heads d")

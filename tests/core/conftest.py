"""Motion modules with the names and shapes of the published files, written down without our own code."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

Fill = Callable[[tuple[int, ...]], Tensor]
Tensors = dict[str, Tensor]

SMALL = (32, 64, 96, 96)

_SHAPES = {
    "norm.weight": (1,),
    "norm.bias": (1,),
    "proj_in.weight": (1, 1),
    "proj_in.bias": (1,),
    "transformer_blocks.0.attention_blocks.0.to_q.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.0.to_k.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.0.to_v.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.0.to_out.0.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.0.to_out.0.bias": (1,),
    "transformer_blocks.0.attention_blocks.1.to_q.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.1.to_k.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.1.to_v.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.1.to_out.0.weight": (1, 1),
    "transformer_blocks.0.attention_blocks.1.to_out.0.bias": (1,),
    "transformer_blocks.0.norms.0.weight": (1,),
    "transformer_blocks.0.norms.0.bias": (1,),
    "transformer_blocks.0.norms.1.weight": (1,),
    "transformer_blocks.0.norms.1.bias": (1,),
    "transformer_blocks.0.ff.net.0.proj.weight": (8, 1),
    "transformer_blocks.0.ff.net.0.proj.bias": (8,),
    "transformer_blocks.0.ff.net.2.weight": (1, 4),
    "transformer_blocks.0.ff.net.2.bias": (1,),
    "transformer_blocks.0.ff_norm.weight": (1,),
    "transformer_blocks.0.ff_norm.bias": (1,),
    "proj_out.weight": (1, 1),
    "proj_out.bias": (1,),
}
"""Weights of one motion module, in multiples of its channels."""


def _places(widths: tuple[int, ...], *, mid: bool) -> Iterator[tuple[str, int]]:
    for level, channels in enumerate(widths):
        yield from ((f"down_blocks.{level}.motion_modules.{i}", channels) for i in range(2))
    for level, channels in enumerate(reversed(widths)):
        yield from ((f"up_blocks.{level}.motion_modules.{i}", channels) for i in range(3))
    if mid:
        yield "mid_block.motion_modules.0", widths[-1]


def _sine_waves(rows: int, channels: int) -> Tensor:
    angles_FK = torch.arange(rows)[:, None] / 10000 ** (torch.arange(0, channels, 2) / channels)
    return torch.stack([angles_FK.sin(), angles_FK.cos()], dim=-1).reshape(1, rows, channels)


def _noise(shape: tuple[int, ...]) -> Tensor:
    return 0.1 * torch.randn(shape)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Tensors are tiny here, and threads that wait for each other cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def motion_tensors() -> Callable[..., Tensors]:
    """`motion_tensors(rows, mid=..., widths=..., fill=..., dtype=...)`: what AnimateDiff's files hold."""

    def build(
        rows: int = 0,
        *,
        mid: bool = False,
        widths: tuple[int, ...] = SMALL,
        fill: Fill = _noise,
        dtype: torch.dtype = torch.float32,
    ) -> Tensors:
        tensors = {}
        waves = {channels: _sine_waves(rows, channels).to(dtype) for channels in widths}
        for place, channels in _places(widths, mid=mid):
            for part, multiples in _SHAPES.items():
                shape = tuple(n * channels for n in multiples)
                tensors[f"{place}.temporal_transformer.{part}"] = fill(shape).to(dtype)
            for i in range(2 if rows else 0):
                attention = f"{place}.temporal_transformer.transformer_blocks.0.attention_blocks.{i}"
                tensors[f"{attention}.pos_encoder.pe"] = waves[channels]
        return tensors

    return build

"""FlexiAct on CogVideoX-5b-I2V: work and memory, counted anywhere in half a minute: `make bench-transfer`.

Steps are measured on a GPU by `make bench-gpu ARGS="--parts FlexiAct"`.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import nn

from flash_modules.backends.diffusers.cogvideox import bytes_of, forward_cost
from flash_modules.flexiact.reweighting import PAPER
from flash_modules.flexiact.sampling import TransferConfig, dpm_steps

from .cards import SHARE
from .learning_rows import BUS, learning_table
from .rows_transfer import CUDA, DRY, new_transformer


@dataclass(frozen=True)
class Row:
    name: str
    tflop: float
    """Of one prediction; a step with guidance has two."""
    gib: float
    """Beside the weights."""


def hollow(settings: Mapping[str, int], dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """A transformer on the CPU whose weights take no memory: each is one zero, repeated."""
    with torch.device("meta"):
        transformer = new_transformer(settings)
    for module in transformer.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                zeros = torch.zeros((), dtype=dtype).expand(tensor.shape)
                tensors[name] = (
                    nn.Parameter(zeros, requires_grad=False) if tensors is module._parameters else zeros
                )
    return transformer


def counted(transformer: CogVideoXTransformer3DModel, tokens: int) -> Iterator[Row]:
    """What one prediction takes."""
    for name, kept, boosted in (
        ("without an action", 0, False),
        ("with an action", tokens, False),
        ("with an action, boosted", tokens, True),
    ):
        cost = forward_cost(transformer, boosted=boosted, tokens=kept)
        yield Row(name, cost.flops / 1e12, cost.peak_bytes / 2**30)


def prefix_bytes(transformer: CogVideoXTransformer3DModel, tokens: int) -> int:
    """Keys and values of an action, kept for a run."""
    width, layers = transformer.proj_out.in_features, len(transformer.transformer_blocks)
    return 2 * layers * tokens * width * transformer.dtype.itemsize


def tables(settings: Mapping[str, int], tokens: int) -> Iterator[str]:
    """The counted page, in Markdown."""
    transformer = hollow(settings, torch.bfloat16)
    rows = list(counted(transformer, tokens))
    plain, acting, boosted = (row.tflop for row in rows)
    steps = TransferConfig.steps
    in_boost = sum(PAPER.at(step.timestep) > 0 for step in dpm_steps(steps))
    run = 2 * ((steps - in_boost) * acting + in_boost * boosted)
    yield "| one prediction | TFLOP | GiB beside the weights |"
    yield "| --- | --- | --- |"
    yield from (f"| {row.name} | {row.tflop:.1f} | {row.gib:.2f} |" for row in rows)
    yield ""
    yield (
        f"Weights in bf16: {bytes_of(transformer) / 2**30:.2f} GiB, a block's "
        f"{bytes_of(transformer.transformer_blocks[0]) / 2**30:.2f}; an action's keys and values "
        f"{prefix_bytes(transformer, tokens) / 2**20:.0f} MiB. A run of {steps} steps with guidance, "
        f"{in_boost} of them boosted: {run / 1000:.1f} PFLOP, {run / (2 * steps * plain) - 1:.1%} more than "
        "without an action."
    )
    yield ""
    yield from learning_table(transformer, tokens)
    yield ""
    yield (
        f"Seconds of a step of learning are estimated: {SHARE:.0%} of each card's dense bf16 products, and "
        f"{BUS / 1e9:.0f} GB/s over the bus for what waits, while nothing is computed."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_transfer", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="try it with small shapes")
    load = DRY if parser.parse_args(arguments).dry else CUDA
    for line in tables(load.settings, load.tokens):
        print(line)


if __name__ == "__main__":
    main()

"""FlexiAct on CogVideoX-5b-I2V: work and memory, counted; on a GPU measured too, beside diffusers' model.

`make bench-transfer` counts anywhere in half a minute; with `ARGS="--device cuda"` it takes a GPU of 16 GiB
or more, and random weights.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn

from flash_modules.backends.diffusers.cogvideox import (
    add_transfer,
    bytes_of,
    forward_cost,
    guided_velocity,
    keep_blocks_on_cpu,
    latents_shape,
)
from flash_modules.flexiact.action_file import TransferAction
from flash_modules.flexiact.performance import Performance
from flash_modules.flexiact.reweighting import PAPER
from flash_modules.flexiact.sampling import TransferConfig, dpm_steps

from .learning_rows import BUS, SHARE, learning_table, measured_learning

TRUE = {"num_attention_heads": 48, "num_layers": 42}
SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 6,
    "text_embed_dim": 24,
    "time_embed_dim": 20,
}
TOKENS = 226
BOOSTED, PLAIN = 900, 500
"""Timesteps with all and with nothing of the early boost."""


@dataclass(frozen=True)
class Row:
    name: str
    tflop: float
    """Of one prediction; a step with guidance has two."""
    gib: float
    """Beside the weights."""


def hollow(settings: dict[str, int], dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """A transformer on the CPU whose weights take no memory: each is one zero, repeated."""
    with torch.device("meta"):
        transformer = _transformer(settings)
    for module in transformer.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                zeros = torch.zeros((), dtype=dtype).expand(tensor.shape)
                tensors[name] = (
                    nn.Parameter(zeros, requires_grad=False) if tensors is module._parameters else zeros
                )
    return transformer


def _transformer(settings: dict[str, int]) -> CogVideoXTransformer3DModel:
    return CogVideoXTransformer3DModel(
        in_channels=32,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=True,
        **settings,
    )


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


def tables(settings: dict[str, int], tokens: int) -> Iterator[str]:
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


class Bench:
    """Steps with guidance on a GPU, with random weights."""

    def __init__(self, settings: dict[str, int], tokens: int, device: torch.device) -> None:
        self.device, self.tokens = device, tokens
        with torch.device(device):
            torch.set_default_dtype(torch.bfloat16)
            self.transformer = _transformer(settings).eval().requires_grad_(False)
            torch.set_default_dtype(torch.float32)
        config = self.transformer.config
        self.latents = self._draw(*latents_shape(self.transformer))
        self.texts = [self._draw(1, config.max_text_seq_length, config.text_embed_dim) for _ in range(2)]

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def add_action(self) -> Callable[[], None]:
        layers, width = len(self.transformer.transformer_blocks), self.transformer.proj_out.in_features
        action = TransferAction(name="random", tokens_LMC=torch.randn(layers, self.tokens, width))
        return add_transfer(self.transformer, [Performance(action=action)])

    def row(self, name: str, timestep: int, repeats: int) -> str:
        """Seconds of a step, the median, and the most memory that it holds, weights included."""
        predict = guided_velocity(self.transformer, self.latents[:1], self.texts[0], self.texts[1], 6.0)
        seconds = []
        torch.cuda.reset_peak_memory_stats()
        for _ in range(1 + repeats):
            torch.cuda.synchronize()
            start = time.perf_counter()
            predict(self.latents, timestep)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        peak = torch.cuda.max_memory_allocated() / 2**30
        return f"| {name} | {statistics.median(seconds[1:]):.2f} | {peak:.1f} |"


@torch.inference_mode()
def measured(settings: dict[str, int], tokens: int, repeats: int) -> Iterator[str]:
    """The measured page, in Markdown."""
    bench = Bench(settings, tokens, torch.device("cuda"))
    yield f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, random weights."
    yield ""
    yield "| one step with guidance | s | GiB |"
    yield "| --- | --- | --- |"
    yield bench.row("diffusers' own model", PLAIN, repeats)
    bench.add_action()
    yield bench.row("with an action", PLAIN, repeats)
    yield bench.row("with an action, boosted", BOOSTED, repeats)
    keep_blocks_on_cpu(bench.transformer, bench.device)
    torch.cuda.empty_cache()
    yield bench.row("with an action, blocks on the CPU", PLAIN, repeats)


def measured_training(settings: dict[str, int], tokens: int, repeats: int) -> Iterator[str]:
    """What learning takes with every setting that saves memory."""
    bench = Bench(settings, tokens, torch.device("cuda"))
    yield ""
    yield from measured_learning(bench.transformer, tokens, bench.device, repeats)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_transfer", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: measure there, too")
    parser.add_argument(
        "--repeats", type=int, default=2, help="steps of a measured row (default %(default)s)"
    )
    parser.add_argument("--dry", action="store_true", help="try it with small shapes")
    options = parser.parse_args(arguments)
    settings, tokens = (SMALL, 5) if options.dry else (TRUE, TOKENS)
    for line in tables(settings, tokens):
        print(line)
    if options.device == "cuda":
        for line in measured(settings, tokens, options.repeats):
            print(line, flush=True)
        for line in measured_training(settings, tokens, options.repeats):
            print(line, flush=True)


if __name__ == "__main__":
    main()

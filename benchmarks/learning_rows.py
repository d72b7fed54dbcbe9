"""Rows of `bench_transfer` for learning an action: counted settings, estimated seconds, measured steps."""

import statistics
import time
from collections.abc import Iterator

import torch
from diffusers import CogVideoXTransformer3DModel

from flash_modules.backends.diffusers.cogvideox import bytes_of, latents_shape
from flash_modules.backends.diffusers.cogvideox.train import SAVINGS, LearningTokens, Saving, step_needs

CARDS = {"RTX 3090": 71, "RTX 4090": 165, "H100 SXM": 989}
"""TFLOP/s of dense bf16 products with sums in fp32, by the makers' data sheets."""
SHARE = 0.5
"""Of that, assumed to be reached."""
BUS = 12e9
"""Bytes per second from the computer's memory to the card, assumed: half of what PCIe 4.0 x16 can do."""


def flags(saving: Saving) -> str:
    """How the command line spells it."""
    return f"`--checkpointing {saving.checkpointing}{' --offload blocks' if saving.offload else ''}`"


def copied_bytes(transformer: CogVideoXTransformer3DModel, saving: Saving, waiting: int) -> int:
    """Over the bus in a step: weights that wait, forward and backward; inputs, there and back."""
    weights = bytes_of(transformer.transformer_blocks) if saving.offload else 0
    return 2 * weights + 2 * (waiting - weights)


def learning_table(transformer: CogVideoXTransformer3DModel, tokens: int) -> Iterator[str]:
    """The settings with what a step takes, in Markdown."""
    yield f"| {' | '.join(('setting', 'TFLOP', 'GiB on the GPU', 'GiB waiting', *CARDS))} |"
    yield f"|{' --- |' * (4 + len(CARDS))}"
    host = LearningTokens(transformer, tokens)
    for saving in SAVINGS:
        needs = step_needs(host, saving)
        copying = copied_bytes(transformer, saving, needs.waiting_bytes) / BUS
        seconds = (f"{needs.flops / (speed * 1e12 * SHARE) + copying:.1f} s" for speed in CARDS.values())
        memory = f"{needs.device_bytes / 2**30:.1f} | {needs.waiting_bytes / 2**30:.1f}"
        yield f"| {flags(saving)} | {needs.flops / 1e12:.0f} | {memory} | {' | '.join(seconds)} |"
    host.remove()


def measured_learning(
    transformer: CogVideoXTransformer3DModel, tokens: int, device: torch.device, repeats: int
) -> Iterator[str]:
    """Seconds of a step, the median, and the most memory that it holds, weights included."""
    yield "| a step of learning | s | GiB |"
    yield "| --- | --- | --- |"
    for saving in SAVINGS:
        host = LearningTokens(transformer, tokens, saving)
        host.to(device)
        torch.cuda.empty_cache()
        try:
            seconds, peak = _measure(host, device, repeats)
            yield f"| {flags(saving)} | {seconds:.2f} | {peak:.1f} |"
        except torch.OutOfMemoryError:
            yield f"| {flags(saving)} | does not fit | |"
        host.remove()


def _measure(host: LearningTokens, device: torch.device, repeats: int) -> tuple[float, float]:
    config = host.transformer.config
    latents = torch.randn(1, *latents_shape(host.transformer), device=device)
    texts = torch.randn(1, config.max_text_seq_length, config.text_embed_dim, device=device)
    timestep_1 = torch.tensor([500], device=device)
    optimizer, seconds = torch.optim.AdamW(host.tokens.values(), lr=3e-3), []
    torch.cuda.reset_peak_memory_stats()
    for _ in range(1 + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        host.predict(latents, latents, timestep_1, texts).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), torch.cuda.max_memory_allocated() / 2**30

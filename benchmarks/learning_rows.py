"""Rows of `bench_transfer` for learning an action: counted settings, estimated seconds."""

from collections.abc import Iterator

from diffusers import CogVideoXTransformer3DModel

from flash_modules.backends.diffusers.cogvideox import bytes_of
from flash_modules.backends.diffusers.cogvideox.train import LearningTokens
from flash_modules.flexiact.training.needs import step_needs
from flash_modules.flexiact.training.saving import SAVINGS, Saving

from .cards import CARDS, SHARE
from .rows_transfer import flags

BUS = 12e9
"""Bytes per second from the computer's memory to the card, assumed: half of what PCIe 4.0 x16 can do."""


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
        yield f"| `{flags(saving)}` | {needs.flops / 1e12:.0f} | {memory} | {' | '.join(seconds)} |"
    host.remove()

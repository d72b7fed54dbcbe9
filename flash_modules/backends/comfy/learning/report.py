"""What a node that learned tells of it."""

from collections.abc import Iterator, Sequence

from ....training.clips import Clips

LossMap = dict[str, list[float]]
"""As core's Plot Loss Graph takes them."""


def loss_map(losses: Sequence[float]) -> LossMap:
    """Plot Loss Graph divides by the range of the losses, so there must be one."""
    return {"loss": list(losses) if len(set(losses)) > 1 else [*losses, 0.0]}


def how_it_ended(step: int, steps: int) -> str:
    """Part of a sentence: "3 of 4 steps", and what to do where it was stopped."""
    ended = "" if step >= steps else " (stopped; queue it again to go on)"
    return f"{step} of {steps} steps{ended}"


def losses_in_words(losses: Sequence[float]) -> str:
    """Means of the first and last tenth."""
    part = max(1, len(losses) // 10)
    first, last = (sum(some) / len(some) for some in (losses[:part], losses[-part:]))
    return f"Loss: {first:.4f} in the first tenth, {last:.4f} in the last."


def left_out(clips: Clips) -> Iterator[str]:
    """A line for each clip that was not learned from, with the reason."""
    for skipped in clips.skipped:
        yield f"Left out {skipped.path.name}: {skipped.reason}"

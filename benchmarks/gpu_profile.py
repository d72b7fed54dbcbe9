"""Where the time of a step goes: kernels by what they compute, and the time in which the device waits."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from .measure import measure_step
from .steps import Step

KINDS = {
    "attention": "attention",
    "convolutions": "conv",
    "matrix products": r"(mm|bmm|linear)$",
    "optimizer and clipping": "foreach|fused_adam",
    "norms": "_norm",
    "casts, copies and joins": r"copy|clone|cat$|stack$|index|gather|fill|zero",
}
"""What computes, by a part of the operator's name; the first that fits counts."""
ELEMENTWISE = "everything by elements: sums, products, activations, noise"
WAITING = "no kernel runs"


def records(step: Step, device: str, rounds: int, table: Path) -> Iterator[dict[str, Any]]:
    """A record of each kind of kernel in a step; all operators and kernels go into the file `table`.

    The shares are of an unobserved step; the device waits for what no kernel takes of it.
    """
    seconds = measure_step(step, device, rounds, counted=False).seconds
    on_gpu = device == "cuda"
    watched = [ProfilerActivity.CPU, ProfilerActivity.CUDA][: 1 + on_gpu]
    with profile(activities=watched) as found:
        step()
    averages = found.key_averages()
    table.write_text(averages.table(sort_by=f"self_{device}_time_total", row_limit=60))
    kinds: dict[str, tuple[float, int]] = {}
    for event in averages:
        if event.device_type.name == "CPU":  # kernels are told again by themselves
            taken = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            if taken:
                milliseconds, calls = kinds.get(kind := kind_of(event.key), (0.0, 0))
                kinds[kind] = milliseconds + taken / 1e3, calls + event.count
    kinds[WAITING] = 1e3 * seconds - sum(milliseconds for milliseconds, _ in kinds.values()), 0
    for kind, (milliseconds, calls) in sorted(kinds.items(), key=lambda item: -item[1][0]):
        share = milliseconds / seconds / 1e3
        yield {"row": kind, "milliseconds": milliseconds, "share": share, "calls": calls}


def kind_of(operator: str) -> str:
    """What an operator computes."""
    return next((kind for kind, part in KINDS.items() if re.search(part, operator)), ELEMENTWISE)

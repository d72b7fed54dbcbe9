"""The part of `make bench-gpu` that needs ComfyUI: its rows, and its ways to hold memory."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .bench import COMFYUI_PYTHON
from .gpu_checks import difference
from .gpu_run import Record, Run, key
from .measure import FAILURES, ROOT

MODES = ("normal", "low", "no", "dynamic")
"""Of holding memory; the first is what the others are compared with."""

MESSAGE = 2000
"""Letters of what a failed process said that are kept, from its end."""


def records(run: Run) -> Iterator[Record]:
    """Everything, where there is a ComfyUI."""
    options = ["--small", "--threads", "1"] if run.dry else ["--peer", str(run.peer)] if run.peer else []
    for told in in_comfyui("--each", *options):
        if "left_out" in told:
            yield {"row": "all rows", "error": told["left_out"]}
            return
        yield dict(told)
    yield from modes()


def wan_records(run: Run) -> Iterator[Record]:
    """Steps of learning on Wan 2.2, where there is a ComfyUI."""
    options = ["--dry", "--rounds", "1"] if run.dry else ["--rounds", str(run.rounds)]
    for told in in_comfyui("--measure", *options, script="rows_wan"):
        if "left_out" in told:
            yield {"row": "all rows", "error": told["left_out"]}
        elif key(dict(told)) not in run.before:
            yield dict(told)


def modes() -> Iterator[Record]:
    """A run of small widths in each mode."""
    normal: list[float] = []
    for mode in MODES:
        row = f"{mode} VRAM: a run of small widths, against normal VRAM"
        try:
            *_, told = in_comfyui("--vram", mode)
            normal = normal or told["latents"]
            found = difference(*map(torch.tensor, (told["latents"], normal)))
            yield {"row": row, "difference": found}
        except FAILURES as error:
            yield {"row": row, "error": str(error)}


def in_comfyui(*options: str, script: str = "rows_comfyui") -> Iterator[Mapping[str, Any]]:
    """What a process of ComfyUI's Python tells, as it comes."""
    command = [COMFYUI_PYTHON, "-m", f"benchmarks.{script}", *options]
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=words, text=True)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
        if process.returncode:
            words.seek(0)
            said = words.read().strip()[-MESSAGE:]
            raise RuntimeError(f"{said.splitlines()[-1]}\n{said}")

"""The parts of `make bench-gpu`, each a process: `python -m benchmarks.gpu_parts PART --out FILE`.

A part adds a line of JSON to the file for each row as soon as it is measured.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from flash_modules.backends.diffusers.sd15 import add_cross_frame_attention

from . import bench_details, gpu_checks, measure, rows_diffusers, rows_train
from .bench import COMFYUI_PYTHON
from .measure import FAILURES, ROOT, AnyLoad, Load, Rows, figures, measure_rows, measure_step

Record = dict[str, Any]
"""What a part tells: `host`, the `planned` rows, or a row by its name with what was measured or `error`."""

DRY_WIDTHS = (32, 64)
DRY_VAE_WIDTHS = (32, 32, 32, 32)
RUN_STEPS = 25
PACKAGES = ("torch", "diffusers", "transformers", "einops")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()  # diffusers warns of casts
    if options.dry:
        torch.set_num_threads(1)  # models this small only wait for a second thread
    with options.out.open("a") as file:
        for record in records(options.part, dry=options.dry):
            print(json.dumps({"part": options.part, **record}), file=file, flush=True)


def records(part: str, *, dry: bool) -> Iterator[Record]:
    """Everything that a part tells; `dry` tries the code with small shapes, on the CPU where need be."""
    yield {"host": host()}
    yield from PARTS[part](dry)


def host() -> Mapping[str, str]:
    """What a figure depends on beside the code."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    card = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if on_cuda() else "no GPU"
    return {"card": card, "python": platform.python_version(), **versions, "cores": str(os.cpu_count())}


def rounds(dry: bool) -> int:
    """Timed steps of each row."""
    return 1 if dry else 3


def on_cuda() -> bool:
    return torch.cuda.is_available()


def sized(load: AnyLoad, dry: bool) -> AnyLoad:
    """The load, or a small one of its kind."""
    if not dry:
        return load
    device, dtype = ("cuda", load.dtype) if on_cuda() else ("cpu", torch.float32)
    return replace(
        load, device=device, dtype=dtype, num_frames=3, pixels=64, widths=DRY_WIDTHS, text_tokens=5
    )


def measured(rows: Rows, load: Load, count: int) -> Iterator[Record]:
    """A record of each row, and of all their names first."""
    about = labels(load)
    yield {"planned": list(rows), **about}
    for name, found in measure_rows(rows, load, count):
        yield {"row": name, **about, **figures(found)}


def labels(load: Load) -> Record:
    return {
        "dtype": str(load.dtype).removeprefix("torch."),
        "video": f"{load.num_frames} x {load.pixels}x{load.pixels}",
    }


def generation(dry: bool) -> Iterator[Record]:
    """One step of guidance in each model, as one batch of two prompts; and a whole run of our sampler."""
    for dtype in (torch.float16,) if dry else (torch.float16, torch.bfloat16):
        load = sized(replace(measure.CUDA, dtype=dtype), dry)
        with torch.inference_mode():
            yield from measured(rows_diffusers.rows(load), load, rounds(dry))
            if dtype == torch.float16:
                yield from whole_run(load, steps=2 if dry else RUN_STEPS)


def whole_run(load: Load, steps: int) -> Iterator[Record]:
    found = measure_step(rows_diffusers.whole_run(load, steps), load, rounds=1, counted=False)
    row = f"ours: each of a run's {steps} steps, two calls, DDIM included"
    yield {"row": row, **labels(load), **figures(replace(found, seconds=found.seconds / steps))}
    measure.release()


def training(pixels: int, dry: bool) -> Iterator[Record]:
    """One step on a clip and its twin. MFU is of the card's own rate, measured in the same process."""
    load = replace(rows_train.CUDA, pixels=pixels)
    if dry:
        load = replace(sized(load, dry), vae_widths=DRY_VAE_WIDTHS, product_width=64)
    rows = dict(rows_train.rows(load))
    product = measure_step(rows.pop(rows_train.PRODUCT)(), load, rounds(dry))
    flops = 2 * load.product_width**3
    rate = flops / product.seconds
    yield {
        "row": f"{rows_train.PRODUCT}, {load.product_width} wide",
        **labels(load),
        "seconds": product.seconds,
        "flops": flops,
    }
    needed: dict[str, int] = {}
    for record in measured(rows, load, rounds(dry)):
        if "seconds" in record:
            name = record["row"].partition(",")[0]
            needed.setdefault(name, record["flops"])
            record["mfu"] = needed[name] / record["seconds"] / rate
        yield record


def details(dry: bool) -> Iterator[Record]:
    """Decoding a video frame by frame, plain and with details; the reference is encoded before."""
    for dtype in (torch.float16,) if dry else (torch.float16, torch.float32):
        load = sized(replace(bench_details.LOADS["cuda"], dtype=dtype), dry)
        load = replace(load, widths=DRY_VAE_WIDTHS) if dry else load
        with torch.no_grad():
            rows = bench_details.rows(load)
            kept = {name: rows[name] for name in (bench_details.PLAIN, bench_details.DETAILED)}
            yield from measured(kept, load, rounds(dry))


def compiled(dry: bool) -> Iterator[Record]:
    """The step of generation as it is and compiled by torch; what compiling takes is its warm-up."""
    load = sized(measure.CUDA, dry)
    eager, fast = rows_diffusers.OURS, "the same, torch.compile"
    yield {"planned": [eager, fast], **labels(load)}
    with torch.no_grad():
        model = add_cross_frame_attention(rows_diffusers.Models(load).animated())
        call = rows_diffusers.our_call(model, rows_diffusers.Inputs(load))
        found = measure_step(rows_diffusers.timed(call), load, rounds(dry))
        yield {"row": eager, **labels(load), **figures(found)}
        step = rows_diffusers.timed(torch.compile(call, backend="eager" if dry else "inductor"))
        first = step()
        faster = measure_step(step, load, rounds(dry), counted=False)
        yield {
            "row": fast,
            **labels(load),
            **figures(replace(faster, flops=found.flops)),
            "first_seconds": first,
        }


def comfyui(dry: bool) -> Iterator[Record]:
    """The rows of ComfyUI, and its ways to hold memory, where there is a ComfyUI."""
    options = ["--small"] if dry else []
    timed = in_comfyui(*options, "--each")
    if "left_out" in timed:
        yield {"row": "all rows", "error": timed["left_out"]}
        return
    for record in timed["each"]:
        yield {"dtype": "float16", "video": timed["load"], **record}
    normal: list[float] = []
    for mode in ("normal", "low", "no"):
        row = f"{mode} VRAM: a run of small widths, against normal VRAM"
        try:
            latents = in_comfyui("--vram", mode)["latents"]
            normal = normal or latents
            yield {"row": row, "difference": gpu_checks.difference(*map(torch.tensor, (latents, normal)))}
        except FAILURES as error:
            yield {"row": row, "error": str(error)}


def in_comfyui(*options: str) -> Mapping[str, Any]:
    """The result of a process of ComfyUI's Python: the last line that it prints."""
    command = [COMFYUI_PYTHON, "-m", "benchmarks.rows_comfyui", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    result: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


PARTS: Mapping[str, Callable[[bool], Iterator[Record]]] = {
    "correctness": gpu_checks.records,
    "generation": generation,
    "training 512": partial(training, 512),
    "training 384": partial(training, 384),
    "training 256": partial(training, 256),
    "details": details,
    "ComfyUI": comfyui,
    "compiled": compiled,
}

if __name__ == "__main__":
    main()

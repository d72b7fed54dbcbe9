"""The parts of `make bench-gpu`, each a process: `python -m benchmarks.gpu_parts PART --out FILE`.

A part adds a line of JSON to the file for each row as soon as it is measured.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers.utils import logging

from flash_modules.backends.diffusers.sd15 import add_cross_frame_attention

from . import (
    bench_details,
    gpu_checks,
    gpu_comfyui,
    gpu_pretraining,
    gpu_profile,
    measure,
    rows_diffusers,
    rows_train,
    rows_transfer,
)
from .gpu_run import Record, Run, key, measured_before, read_records
from .measure import AnyLoad, Load, figures, labels, measure_rows, measure_step
from .steps import Rows, timed

DRY_WIDTHS = (32, 64)
DRY_VAE_WIDTHS = (32, 32, 32, 32)
RUN_STEPS = 25
PACKAGES = ("torch", "diffusers", "transformers", "einops")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--seconds", type=float, default=Run.seconds)
    options = parser.parse_args(arguments)
    logging.set_verbosity_error()  # diffusers warns of casts
    if options.dry:
        torch.set_num_threads(1)  # models this small only wait for a second thread
    before = measured_before(read_records(options.out), options.part)
    run = Run(
        folder=options.out.parent,
        dry=options.dry,
        peer=options.peer,
        seconds=options.seconds,
        before=before,
    )
    with options.out.open("a") as file:
        for record in itertools.chain([{"host": host()}], PARTS[options.part](run)):
            print(json.dumps({"part": options.part, **record}), file=file, flush=True)


def host() -> Mapping[str, str]:
    """What a figure depends on beside the code."""
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    card = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if on_cuda() else "no GPU"
    return {"card": card, "python": platform.python_version(), **versions, "cores": str(os.cpu_count())}


def on_cuda() -> bool:
    return torch.cuda.is_available()


def sized(load: AnyLoad, run: Run) -> AnyLoad:
    """The load, or a small one of its kind."""
    if not run.dry:
        return load
    device, dtype = ("cuda", load.dtype) if on_cuda() else ("cpu", torch.float32)
    return replace(
        load, device=device, dtype=dtype, num_frames=3, pixels=64, widths=DRY_WIDTHS, text_tokens=5
    )


def measured(rows: Rows, about: Mapping[str, str], device: str, run: Run) -> Iterator[Record]:
    """A record of each row that was not measured before, and of all their names first."""
    yield {"planned": list(rows), **about}
    left = {name: build for name, build in rows.items() if key({"row": name, **about}) not in run.before}
    for name, found in measure_rows(left, device, run.rounds):
        yield {"row": name, **about, **figures(found)}


def generation(run: Run) -> Iterator[Record]:
    """One step of guidance in each model, as one batch of two prompts; and a whole run of our sampler."""
    for dtype in (torch.float16,) if run.dry else (torch.float16, torch.bfloat16):
        load = sized(replace(measure.CUDA, dtype=dtype), run)
        with torch.inference_mode():
            yield from measured(rows_diffusers.rows(load), labels(load), load.device, run)
            if dtype == torch.float16:
                yield from whole_run(load, run)


def whole_run(load: Load, run: Run) -> Iterator[Record]:
    steps = 2 if run.dry else RUN_STEPS
    row = {"row": f"ours: each of a run's {steps} steps, two calls, DDIM included", **labels(load)}
    if key(row) not in run.before:
        found = measure_step(rows_diffusers.whole_run(load, steps), load.device, rounds=1, counted=False)
        yield {**row, **figures(replace(found, seconds=found.seconds / steps))}
        measure.release()


def training_load(pixels: int, run: Run) -> rows_train.TrainLoad:
    load = replace(rows_train.CUDA, pixels=pixels)
    return replace(sized(load, run), vae_widths=DRY_VAE_WIDTHS, product_width=64) if run.dry else load


def training(pixels: int, run: Run) -> Iterator[Record]:
    """One step on a clip and its twin. MFU is of the card's own rate, measured in the same process."""
    load = training_load(pixels, run)
    rows = dict(rows_train.rows(load))
    product = measure_step(rows.pop(rows_train.PRODUCT)(), load.device, run.rounds)
    flops = 2 * load.product_width**3
    rate = flops / product.seconds
    yield {
        "row": f"{rows_train.PRODUCT}, {load.product_width} wide",
        **labels(load),
        "seconds": product.seconds,
        "flops": flops,
    }
    size = labels(load).items()
    needed = {row["row"]: row["flops"] for row in run.before.values() if size <= row.items()}
    for record in measured(rows, labels(load), load.device, run):
        if "seconds" in record:
            name = record["row"].partition(",")[0]
            needed.setdefault(name, record["flops"])
            record["mfu"] = needed[name] / record["seconds"] / rate
        yield record


def training_profile(run: Run) -> Iterator[Record]:
    """What the first row of training at 512 x 512 consists of."""
    load = training_load(512, run)
    training = rows_train.Training(load)
    step = training.step(rows_train.losses(training)["ours"]())
    yield from gpu_profile.records(step, load.device, run.rounds, run.folder / "profile.txt")


def details(run: Run) -> Iterator[Record]:
    """Decoding a video frame by frame, plain and with details; the reference is encoded before."""
    for dtype in (torch.float16,) if run.dry else (torch.float16, torch.float32):
        load = sized(replace(bench_details.LOADS["cuda"], dtype=dtype), run)
        load = replace(load, widths=DRY_VAE_WIDTHS) if run.dry else load
        with torch.no_grad():
            rows = bench_details.rows(load)
            kept = {name: rows[name] for name in (bench_details.PLAIN, bench_details.DETAILED)}
            yield from measured(kept, labels(load), load.device, run)


def transfer(run: Run) -> Iterator[Record]:
    """FlexiAct: a step with guidance, and a step of learning with every setting that saves memory."""
    load = rows_transfer.CUDA
    if run.dry:
        device, dtype = ("cuda", load.dtype) if on_cuda() else ("cpu", torch.float32)
        load = replace(rows_transfer.DRY, device=device, dtype=dtype)
    yield from measured(rows_transfer.rows(load), rows_transfer.labels(load), load.device, run)


def compiled(run: Run) -> Iterator[Record]:
    """The step of generation as it is and compiled by torch; what compiling takes is its warm-up."""
    load = sized(measure.CUDA, run)
    eager, fast = rows_diffusers.OURS, "the same, torch.compile"
    yield {"planned": [eager, fast], **labels(load)}
    with torch.no_grad():
        model = add_cross_frame_attention(rows_diffusers.Models(load).animated())
        call = rows_diffusers.our_call(model, rows_diffusers.Inputs(load))
        found = measure_step(timed(call), load.device, run.rounds)
        yield {"row": eager, **labels(load), **figures(found)}
        step = timed(torch.compile(call, backend="eager" if run.dry else "inductor"))
        first = step().seconds
        faster = measure_step(step, load.device, run.rounds, counted=False)
        yield {
            "row": fast,
            **labels(load),
            **figures(replace(faster, flops=found.flops)),
            "first_seconds": first,
        }


PARTS: Mapping[str, Callable[[Run], Iterator[Record]]] = {
    "correctness": lambda run: gpu_checks.records(dry=run.dry),
    "generation": generation,
    "training 512": partial(training, 512),
    "profile of training 512": training_profile,
    "ComfyUI": gpu_comfyui.records,
    "training 384": partial(training, 384),
    "training 256": partial(training, 256),
    "details": details,
    "FlexiAct": transfer,
    "Wan": gpu_comfyui.wan_records,
    "compiled": compiled,
    "pretraining": gpu_pretraining.records,
}

if __name__ == "__main__":
    main()

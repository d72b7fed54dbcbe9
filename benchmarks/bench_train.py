"""Cost, time and memory of one step of training: `make bench-train`, or with `ARGS=--small` for a quick try.

Prints a Markdown table. All rows of a size are timed in one process, taking turns; the memory of each row is
taken in a process of its own. Sizes of Stable Diffusion 1.5 that are not timed are counted all the same.
"""

import argparse
import math
import sys
from dataclasses import replace

from diffusers.utils import logging

from .bench import rounds_of, run
from .measure import Load, add_options, choose_load
from .rows_train import CUDA, LOADS, PRODUCT, TrainLoad, count_flops
from .steps import middle

SCRIPT = "rows_train"
SIZES = (256, 384, 512)
UNMEASURED = "unmeasured"
NOTES = (
    "TFLOP: counted, not timed: matrix products and convolutions of the forward and backward pass, layers "
    "that run again included; a multiply and an add are two.",
    "MFU: the row's TFLOP, layers that run again left out, by its time and by the device's own rate: that of "
    "a product of two large square matrices of the same dtype, which takes its turn among the rows.",
    "Peak memory: of the whole process on a CPU, of torch's allocations during a step on CUDA.",
    "A step is drawing noise, forward and backward pass on a clip and its twin, and AdamW. Checkpointing "
    "`motion`: the motion modules run again; `all`: ResNets and transformer blocks too.",
    "naive: the VAE encodes both clips in every step, and each passes the U-Net by itself. So nothing can be "
    "aligned. Reading, augmenting and the text encoder are in no row.",
    "Targets at 512x512, 16 frames: 3.5 s on an RTX 3090, 1.6 s on an RTX 4090, 0.45 s on an H200 (stretch: "
    "0.30), and 16 GiB at most with checkpointing.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost, time and memory of one training step.")
    options = add_options(parser).parse_args()
    load = choose_load(options, LOADS)
    logging.set_verbosity_error()  # diffusers warns of casts
    print("| row | video | TFLOP | s/step | MFU | peak memory |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    timed = [replace(load, pixels=pixels) for pixels in sizes(load, options)]
    notes = [print_timed(load) for load in timed]
    if not options.small:
        for untimed in (replace(CUDA, pixels=pixels) for pixels in SIZES):
            if untimed not in timed:
                print_counted(untimed)
    notes.append(
        f"Seconds: median of {options.rounds} rounds in which the rows take turns, after one to warm up."
    )
    print("", *(f"- {note}" for note in (*notes, *NOTES)), sep="\n")


def sizes(load: Load, options: argparse.Namespace) -> tuple[int, ...]:
    """Heights and widths that are timed."""
    return SIZES if load.device == "cuda" and not options.pixels else (load.pixels,)


def print_timed(load: TrainLoad) -> str:
    """Print the rows of a size; the result says what they ran on."""
    flops, pixels = count_flops(load), ("--pixels", str(load.pixels))
    timed = run(sys.executable, SCRIPT, *pixels)
    seconds_of = {row: middle(each).seconds for row, each in rounds_of(timed).items()}
    rate = 2 * load.product_width**3 / seconds_of.pop(PRODUCT)
    for row, seconds in seconds_of.items():
        if seconds == math.inf:
            print_row(row, load, flops[row], ("out of memory", "", ""))
            continue
        peak = run(sys.executable, SCRIPT, *pixels, "--memory", row)["peak"]
        mfu = flops[row.partition(",")[0]] / seconds / rate
        print_row(row, load, flops[row], (f"{seconds:.3f}", f"{mfu:.0%}", f"{peak / 2**30:.2f} GiB"))
    return f"{timed['host']}: {timed['load']}; matrix products at {rate / 1e12:.3g} TFLOP/s."


def print_counted(load: TrainLoad) -> None:
    for row, flops in count_flops(load).items():
        print_row(row, load, flops, (UNMEASURED,) * 3)


def print_row(row: str, load: Load, flops: int, measured: tuple[str, str, str]) -> None:
    video = f"{load.num_frames} x {load.pixels}x{load.pixels}"
    print(f"| {row} | {video} | {flops / 1e12:.3g} | {' | '.join(measured)} |", flush=True)


if __name__ == "__main__":
    main()

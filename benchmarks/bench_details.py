"""Cost, time and memory of decoding with details: `make bench-details`; `ARGS=--small` is a quick try.

Prints a Markdown table. The cost of 512x512 is counted; what is timed is timed in one process, in turns.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.utils import logging
from torch import Tensor

from flash_modules.backends.diffusers.sd15.detail import decode_with_details, reference_features
from flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from flash_modules.training.cost import Cost, counting

from .measure import CPU, CUDA, SMALL, Load, add_options, choose_load, randomise
from .steps import Rows, Step, middle, time_rows, timed

LOADS = {
    "cpu": replace(CPU, num_frames=1, widths=(128, 256, 512, 512)),
    "cuda": replace(CUDA, num_frames=16, widths=(128, 256, 512, 512)),
    "small": replace(SMALL, num_frames=1),
}
COUNTED = replace(LOADS["cpu"], pixels=512)
FRAMES = 16
"""Of the video whose cost is counted; its reference is encoded once."""
PLAIN, DETAILED = "plain decode", "with details"
DECODERS: Mapping[str, Mapping[str, Any]] = {
    DETAILED: {},
    "with details, warping alone": {"attention": False},
    "with details, attention alone": {"warping": False},
    "with details, attention to all patches": {"max_keys": 256},
}
NOTES = (
    f"TFLOP: counted, of {FRAMES} frames of 512x512, the encoding of the reference included.",
    "Memory: counted in fp32, the most that a frame holds at a time beside the weights, the reference's "
    "features included.",
    "Seconds: without the reference, which a video needs once.",
)


class Vae:
    """A random VAE with Stable Diffusion's layers, and what it is measured on."""

    def __init__(self, load: Load) -> None:
        levels = len(load.widths)
        with torch.device("meta"):
            vae = AutoencoderKL(
                block_out_channels=load.widths,
                down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels,
                layers_per_block=2,
                latent_channels=4,
            )
        self.load = load
        self.vae = self._place(vae, seed=0)
        self.latents_FCHW = self._empty(load.num_frames, 4, load.size, load.size)
        self.picture_1HWC = self._empty(1, load.pixels, load.pixels, 3)

    def _empty(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.load.device, dtype=self.load.dtype)

    def _place(self, module: Any, seed: int) -> Any:
        return randomise(module.to(self.load.dtype).to_empty(device=self.load.device), seed)

    def decoder(self, **settings: Any) -> DetailDecoder:
        config = DetailDecoderConfig(channels=self.load.widths, **settings)
        return self._place(DetailDecoder(config, device="meta"), seed=1)

    def plain(self, latents_FCHW: Tensor) -> Tensor:
        return self.vae.decode(latents_FCHW / self.vae.config.scaling_factor, return_dict=False)[0]

    def references(self) -> list[Tensor]:
        return reference_features(self.vae, self.picture_1HWC)


def main() -> None:
    options = add_options(argparse.ArgumentParser(description=__doc__)).parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    load = choose_load(options, LOADS)
    logging.set_verbosity_error()  # diffusers warns of casts
    with torch.no_grad():  # inference mode would show the counter whole layers, which it does not know
        costs, rounds = count(), time_rows(rows(load), options.rounds)
    seconds = {row: middle(each).seconds for row, each in rounds.items()}
    print("| row | TFLOP | x plain | memory of a frame | x plain | seconds | x plain |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row, cost in costs.items():
        tflop, gib = cost.flops / 1e12, cost.peak_bytes / 2**30
        ratios = (
            cost.flops / costs[PLAIN].flops,
            cost.peak_bytes / costs[PLAIN].peak_bytes,
            seconds[row] / seconds[PLAIN],
        )
        print(
            f"| {row} | {tflop:.1f} | {ratios[0]:.2f} | {gib:.2f} GiB | {ratios[1]:.2f} "
            f"| {seconds[row]:.3f} | {ratios[2]:.2f} |"
        )
    print("", *(f"- {note}" for note in (*NOTES, timed_on(load))), sep="\n")


def timed_on(load: Load) -> str:
    device = torch.cuda.get_device_name() if load.device == "cuda" else "CPU"
    size = f"{load.num_frames} frames of {load.pixels}x{load.pixels}, {load.dtype}, widths {load.widths}"
    return f"Timed: {size}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}."


def count() -> Mapping[str, Cost]:
    """The cost of each row, on tensors that have shapes alone: FLOPs of a video, memory of a frame."""
    costs = {}
    vae = Vae(COUNTED)
    with counting() as counter:
        shapes = [features.shape for features in vae.references()]
    references = [torch.empty(shape) for shape in shapes]
    encoding, held = counter.cost.flops, sum(features.nbytes for features in references)
    with counting() as counter:
        vae.plain(vae.latents_FCHW)
    costs[PLAIN] = Cost(FRAMES * counter.cost.flops, counter.cost.peak_bytes)
    for row, settings in DECODERS.items():
        decoder = vae.decoder(**settings)
        with counting() as counter:
            decode_with_details(vae.vae, decoder, vae.latents_FCHW, references)
        costs[row] = Cost(encoding + FRAMES * counter.cost.flops, held + counter.cost.peak_bytes)
    return costs


def rows(load: Load) -> Rows:
    """Builders of the timed rows, on one VAE. Frames are decoded one after the other."""
    vae = Vae(load)
    references = vae.references()

    def step(decode: Callable[[Tensor], Tensor]) -> Step:
        def all_frames() -> None:
            for latent_1CHW in vae.latents_FCHW.split(1):
                decode(latent_1CHW)

        return timed(all_frames)

    def detailed(settings: Mapping[str, Any]) -> Step:
        decoder = vae.decoder(**settings)
        return step(lambda latent_1CHW: decode_with_details(vae.vae, decoder, latent_1CHW, references))

    detailed_rows = {row: partial(detailed, settings) for row, settings in DECODERS.items()}
    return {PLAIN: lambda: step(vae.plain), **detailed_rows}


if __name__ == "__main__":
    main()

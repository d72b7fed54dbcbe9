"""Which motion module belongs behind which block of ComfyUI's U-Net."""

from collections.abc import Iterable, Iterator

import comfy.supported_models
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import (
    ResBlock,
    TimestepEmbedSequential,
    UNetModel,
    Upsample,
)
from torch import nn

from ....animatediff.motion_module import MotionConfig, check_widths
from .options import Block, Place


def check_sd15(model) -> None:
    """Raise ValueError unless the MODEL is Stable Diffusion 1.5."""
    config = getattr(model.model, "model_config", None)
    if not isinstance(config, comfy.supported_models.SD15):
        found = type(config).__name__ if config is not None else type(model.model).__name__
        raise ValueError(
            f"This MODEL is {found}, but FLASH and AnimateDiff work on Stable Diffusion 1.5: load an SD 1.5 "
            "checkpoint."
        )


def find_places(unet: UNetModel, config: MotionConfig) -> dict[Place, str]:
    """Names of the motion modules by the place they run at.

    A module follows the spatial transformer of its block, else the ResNet, and stands before any up-sampling.
    Raises ValueError if the motion was made for a U-Net of other widths.
    """
    found = dict(_places_of(unet))
    check_widths(config, dict(found.values()))
    wanted = dict(config.places())
    return {place: name for place, (name, _) in found.items() if name in wanted}


def transformer_blocks(unet: UNetModel) -> Iterator[Block]:
    """Blocks that hold a spatial transformer."""
    for side, blocks in (
        ("input", unet.input_blocks),
        ("middle", [unet.middle_block]),
        ("output", unet.output_blocks),
    ):
        for index, block in enumerate(blocks):
            if _last_layer(block) is SpatialTransformer:
                yield side, index


def _places_of(unet: UNetModel) -> Iterator[tuple[Place, tuple[str, int]]]:
    yield from _side(unet.input_blocks, "input", "down_blocks")
    yield from _side(unet.output_blocks, "output", "up_blocks")
    channels = unet.middle_block[0].out_channels
    yield ("middle", 0, _last_layer(unet.middle_block)), ("mid_block.motion_modules.0", channels)


def _side(
    blocks: Iterable[TimestepEmbedSequential], side: str, name: str
) -> Iterator[tuple[Place, tuple[str, int]]]:
    level, j = 0, 0
    for index, block in enumerate(blocks):
        if isinstance(block[0], ResBlock):
            place = (side, index, _last_layer(block))
            yield place, (f"{name}.{level}.motion_modules.{j}", block[0].out_channels)
            j += 1
        ends_level = isinstance(block[-1], Upsample) or not isinstance(block[0], ResBlock)
        if ends_level and j:
            level, j = level + 1, 0


def _last_layer(block: TimestepEmbedSequential) -> type[nn.Module]:
    return SpatialTransformer if any(isinstance(layer, SpatialTransformer) for layer in block) else ResBlock

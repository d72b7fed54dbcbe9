"""Which motion module follows which layer of diffusers' U-Net."""

from collections.abc import Iterator

from diffusers import UNet2DConditionModel
from torch import nn

from ....animatediff.motion_module import MotionConfig, check_widths


def find_places(unet: UNet2DConditionModel, config: MotionConfig) -> dict[str, nn.Module]:
    """The layers that motion modules follow, by the modules' names.

    A module follows the spatial transformer of its place, else the ResNet. Raises ValueError if the motion
    was made for a U-Net of other widths.
    """
    found = dict(_places_of(unet))
    check_widths(config, {name: channels for name, (_, channels) in found.items()})
    return {name: found[name][0] for name, _ in config.places()}


def _places_of(unet: UNet2DConditionModel) -> Iterator[tuple[str, tuple[nn.Module, int]]]:
    for side in ("down_blocks", "up_blocks"):
        for level, block in enumerate(getattr(unet, side)):
            layers = getattr(block, "attentions", block.resnets)
            for j, (layer, resnet) in enumerate(zip(layers, block.resnets, strict=True)):
                yield f"{side}.{level}.motion_modules.{j}", (layer, resnet.out_channels)
    middle = unet.mid_block
    for j, (layer, resnet) in enumerate(zip(middle.attentions, middle.resnets[1:], strict=True)):
        yield f"mid_block.motion_modules.{j}", (layer, resnet.out_channels)

"""AnimateDiff v1's pooled norms in diffusers' U-Net."""

from collections.abc import Iterator
from functools import partial

from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ....animatediff.motion_module import stack_frames, unstack_frames
from .call import Present


def pool_norms(unet: UNet2DConditionModel, present: Present) -> Iterator[RemovableHandle]:
    """From now on the U-Net's ResNet and output norms take one mean and spread for all frames of a video."""
    resnets = [layer for layer in unet.modules() if isinstance(layer, ResnetBlock2D)]
    for norm in (unet.conv_norm_out, *(norm for layer in resnets for norm in (layer.norm1, layer.norm2))):
        yield norm.register_forward_pre_hook(partial(_stack, present))
        yield norm.register_forward_hook(partial(_unstack, present))


def _stack(present: Present, norm: nn.Module, args: tuple[Tensor]) -> Tensor:
    return stack_frames(args[0], present.call.num_frames)


def _unstack(present: Present, norm: nn.Module, args: tuple[Tensor], out: Tensor) -> Tensor:
    return unstack_frames(out, present.call.num_frames)

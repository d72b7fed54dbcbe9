"""AnimateDiff's motion modules in diffusers' U-Net, and the U-Net as FLASH sees it: on whole videos."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from diffusers import UNet2DConditionModel
from einops import rearrange, repeat
from torch import Tensor, nn

from ....animatediff.motion_file import MotionWeights
from ....animatediff.motion_module import MotionModel, check_num_frames
from .call import Present, Undo
from .places import find_places
from .v1_norms import pool_norms

_MARK = "flash_animated"
"""Attribute of a U-Net that has a motion."""


@dataclass(frozen=True)
class MotionHook:
    """Runs a motion module on what a layer of the U-Net gives."""

    motion: MotionModel
    name: str
    present: Present

    def __call__(self, layer: nn.Module, args: tuple, out: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
        if isinstance(out, tuple):
            return (self.run(out[0]),)
        return self.run(out)

    def run(self, features_XCHW: Tensor) -> Tensor:
        return self.motion.get_submodule(self.name)(features_XCHW, self.present.call.num_frames)


class AnimatedUNet(nn.Module):
    """A U-Net and its motion model, as one module. The U-Net is part of it until `remove`."""

    def __init__(self, unet: UNet2DConditionModel, motion: MotionModel) -> None:
        super().__init__()
        self.places = find_places(unet, motion.config)
        if hasattr(unet, _MARK):
            raise ValueError(
                "This U-Net already has a motion, and two cannot run together: load the checkpoint again for "
                "another one, or take that one out with `remove`."
            )
        self.unet = unet
        self.motion = motion.to(unet.device, unet.dtype)
        self.present = Present()
        self.undo = Undo()
        setattr(unet, _MARK, True)
        self.undo.add(partial(delattr, unet, _MARK))
        self._hooks = Undo()
        self.undo.add(self._hooks.run)
        self.run_motion(MotionHook)
        if motion.config.pool_resnet_norms:
            self.undo.add(*(handle.remove for handle in pool_norms(unet, self.present)))

    def run_motion(self, make_hook: Callable[[MotionModel, str, Present], MotionHook]) -> None:
        """Run the motion modules by these hooks from now on, and not by those before."""
        self._hooks.run()
        for name, place in self.places.items():
            hook = make_hook(self.motion, name, self.present)
            self._hooks.add(place.register_forward_hook(hook).remove)

    def remove(self) -> None:
        """Take all out of the U-Net that was added to it: it is then bit for bit what it was."""
        self.undo.run()

    def predict(self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor) -> Tensor:
        """The noise, or velocity, (B, F, C, H, W) in latents of DDPM scale.

        `text_embeds` is one prompt per video (B, M, C), or one per frame (B, F, M, C).
        """
        num_frames = latents_BFCHW.shape[1]
        check_num_frames(self.motion.config, num_frames)
        self.present.call = replace(self.present.call, num_frames=num_frames)
        return predict_frames(self.unet, latents_BFCHW, timestep_B, text_embeds)

    forward = predict  # what DistributedDataParallel calls


def predict_frames(
    unet: UNet2DConditionModel, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor
) -> Tensor:
    """`AnimatedUNet.predict` of a U-Net that takes frames as a batch."""
    num_frames = latents_BFCHW.shape[1]
    latents_XCHW = rearrange(latents_BFCHW, "b f c h w -> (b f) c h w").to(unet.dtype)
    if text_embeds.ndim == 3:
        text_embeds = repeat(text_embeds, "b m c -> b f m c", f=num_frames)
    text_embeds_XMC = rearrange(text_embeds, "b f m c -> (b f) m c").to(latents_XCHW)
    timestep_X = repeat(timestep_B, "b -> (b f)", f=num_frames)
    (found_XCHW,) = unet(latents_XCHW, timestep_X, text_embeds_XMC, return_dict=False)
    return rearrange(found_XCHW, "(b f) c h w -> b f c h w", f=num_frames).to(latents_BFCHW.dtype)


def add_motion(unet: UNet2DConditionModel, weights: MotionWeights) -> AnimatedUNet:
    """The U-Net with motion modules: plain AnimateDiff.

    Raises ValueError if the U-Net has a motion already, or other widths.
    """
    motion = MotionModel(weights.config, device="meta")
    motion.load_state_dict({name: tensor.clone() for name, tensor in weights.tensors.items()}, assign=True)
    return AnimatedUNet(unet, motion.eval())

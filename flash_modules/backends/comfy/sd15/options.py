"""What FLASH keeps in a MODEL's `transformer_options`, which ComfyUI copies with every clone and call."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ....animatediff.motion_module import MotionConfig, MotionModel
from ....flash.motion_alignment import VideoCall

MOTION = "flash_motion"
"""MotionPlan; also the key of the motion model among a MODEL's additional models."""
CALL = "flash_call"
"""MotionCall, during one call of the U-Net."""
CROSS_FRAME = "flash_cross_frame"
"""The Blocks whose self-attention reads the first frame too."""
FIRST_FRAME = "flash_first_frame"
"""CleanFirstFrame."""
VIDEO = "flash_video"
"""WholeVideo, during one step."""
RUN = "flash_run"
"""Key of the wrappers of a sampling run."""
COND_PLACE = "flash_cond"
"""In a prompt: where it stands among those of the whole video."""

Block = tuple[str, int]
"""Side and index of a block of the U-Net, ("input", 1)."""
Place = tuple[str, int, type[nn.Module]]
"""Side and index of a block, and the class of the layer that a motion module follows there."""


@dataclass(frozen=True)
class MotionPlan:
    """Which motion module runs where; the same in all runs of a MODEL."""

    places: Mapping[Place, str]
    config: MotionConfig


@dataclass
class MotionCall:
    """One call of ComfyUI's U-Net: what its layers must know, and what they did."""

    net: MotionModel
    places: Mapping[Place, str]
    video: VideoCall
    replaced: frozenset[Block]
    """Blocks whose self-attention is replaced: by another node (perturbed or self-attention guidance), or by
    ours where that is as good and faster."""
    ran: set[str] = field(default_factory=set)
    last_features_XCHW: Tensor | None = None
    """What the latest motion module gave; in the end, what the U-Net's output layers get."""


@dataclass(frozen=True)
class CleanFirstFrame:
    """The reference that a MODEL is bound to, as an unscaled latent."""

    latent_1CHW: Tensor
    frames_widget: str
    """Where a user sets the number of frames."""

    def z0(self, model) -> Tensor:
        """In the scale of the model's latents."""
        return model.process_latent_in(self.latent_1CHW)

    def in_sampler(self, model, sigma_F: Tensor) -> Tensor:
        """In the sampler's scale: what ComfyUI turns into z0 on the way to the U-Net."""
        scale = model.model_sampling.calculate_input(sigma_F[:1], torch.ones(1, 1, 1, 1).to(sigma_F))
        return self.z0(model).to(sigma_F) / scale

"""Stable Diffusion 1.5 on diffusers as a host that an action is learned on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from .....animatediff.motion_file import MotionWeights
from .....animatediff.motion_module import check_num_frames
from .....files.tensor_file import fingerprint
from .....flash.action_file import Source
from .....flash.adain import AdaINConfig
from .....flash.motion_alignment import VideoCall
from .....flash.sampling import SamplerConfig, sample_video
from .....flash.training.action_training import (
    ActionTraining,
    ActionTrainingConfig,
    Checkpointing,
    Learned,
)
from .....flash.training.export import write_trained_action
from .....flash.training.latent_pool import Encode
from .....flash.training.noise_law import DiffusionNoise
from .....training.clips import Clip
from ..action import keys_values
from ..cross_frame import add_cross_frame_attention
from ..load.base import Base
from ..load.encode import decode_frames, encode_picture, encode_prompt
from ..motion import add_motion
from .alignment import add_alignment
from .trainable import select_trainable


class DiffusersHost:
    """A base and its motion module, ready to learn. The base's U-Net belongs to it from now on."""

    def __init__(
        self,
        base: Base,
        base_name: str,
        motion: MotionWeights,
        config: ActionTrainingConfig,
        device: torch.device,
    ) -> None:
        check_num_frames(motion.config, config.sampling.num_frames)
        self.base, self.motion, self.device, self.dtype = base, motion, device, config.dtype
        self.source = Source(name=base_name, sha256=fingerprint(keys_values(base.unet)))
        animated = add_cross_frame_attention(add_motion(base.unet, motion))
        self.model = add_alignment(animated, config.method.alignment, checkpointing=config.checkpointing)
        self.model.to(device, config.dtype)
        self.weights: Mapping[str, Tensor] = select_trainable(animated, config.method.trainable)
        for weight in self.weights.values():
            weight.data = weight.data.float()
        self.noise = DiffusionNoise(base.prediction)
        self.vae_factor = base.vae_factor
        self._latent_channels: int = base.vae.config.latent_channels

    @property
    def num_bytes(self) -> int:
        """Of all weights on the device."""
        return sum(weight.numel() * weight.element_size() for weight in self.model.parameters())

    @property
    def aligned_layers(self) -> Sequence[str]:
        """The cross-frame attentions, in diffusers' order."""
        return self.model.layers

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Of the base's keys and values, and of the motion module."""
        return {"base": self.source.sha256, "motion_module": self.motion.sha256}

    def predict(
        self, latents_BFCHW: Tensor, timestep_B: Tensor, text_embeds: Tensor, call: VideoCall | None = None
    ) -> Tensor:
        """What the U-Net predicts, computed in the run's dtype."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.model(latents_BFCHW, timestep_B, text_embeds, call)

    def latent_shape(self, num_frames: int, height: int, width: int) -> torch.Size:
        """One latent for each frame."""
        factor = self.vae_factor
        return torch.Size((num_frames, self._latent_channels, height // factor, width // factor))

    def sample(
        self, reference_1CHW: Tensor, prompt: Tensor, negative: Tensor, *, seed: int, config: SamplerConfig
    ) -> Tensor:
        """The paper's sampling."""
        return sample_video(
            self.predict,
            reference_1CHW,
            prompt,
            negative,
            prediction=self.noise.prediction,
            seed=seed,
            config=config,
            style=AdaINConfig(),
        )

    def set_checkpointing(self, checkpointing: Checkpointing) -> None:
        """Choose what runs again in the backward pass, from now on."""
        self.model.set_checkpointing(checkpointing)

    @contextmanager
    def encoder(self) -> Iterator[Encode]:
        """The VAE, on the device as long as it is used."""
        vae = self.base.vae.to(self.device)

        def encode(video_FCHW: Tensor) -> Tensor:
            frames = rearrange(video_FCHW, "f c h w -> f h w c").split(1)
            return torch.cat([encode_picture(vae, frame_1HWC) for frame_1HWC in frames])

        try:
            yield encode
        finally:
            vae.to("cpu")

    def decode(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1] of scaled latents; the VAE is on the device as long as they come."""
        try:
            yield from decode_frames(self.base.vae.to(self.device), latents_FCHW)
        finally:
            self.base.vae.to("cpu")

    def embed(self, prompt: str) -> Tensor:
        """Text embeddings (1, M, C), on the CPU."""
        return encode_prompt(self.base, prompt).clone()

    def write(self, path: Path, learned: Learned, *, standalone: bool) -> None:
        """Write an action file; a `standalone` one holds a whole motion module."""
        write_trained_action(
            path,
            learned,
            self.motion,
            base=self.source,
            prediction=self.noise.prediction,
            standalone=standalone,
        )


def action_training(
    base: Base,
    base_name: str,
    motion: MotionWeights,
    clips: Sequence[Clip],
    config: ActionTrainingConfig,
    device: torch.device,
) -> ActionTraining[DiffusersHost]:
    """A training on a base, its motion module and clips. The base's U-Net belongs to it from now on."""
    return ActionTraining(DiffusersHost(base, base_name, motion, config, device), clips, config)

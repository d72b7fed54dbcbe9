"""The loss of action training: what a micro-batch draws and sees (FLASH, arXiv:2503.00276, 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ...training.sampling import clip_at_step, seeded
from ..motion_alignment import Stills, VideoCall, draw_layers
from .latent_pool import LatentPool
from .loss import Predict, denoising_losses, draw_noise, total_loss
from .method import MethodConfig
from .noise_law import NoiseLaw


@dataclass(frozen=True, kw_only=True)
class ActionLoss:
    """The loss of a micro-batch: a function of its number and of the weights alone."""

    predict: Predict
    law: NoiseLaw
    """By which `predict` was taught."""
    num_layers: int
    """Layers in which the correspondence may be aligned."""
    pool: LatentPool
    text_embeds: Mapping[str, Tensor]
    """Embeddings (1, M, C) of each caption, and of the empty prompt."""
    method: MethodConfig
    text_drop: float
    """Chance of the empty prompt in place of the caption, for classifier-free guidance."""
    seed: int
    device: torch.device

    def __call__(self, number: int) -> Tensor:
        clip = clip_at_step(self.pool.clips, self.seed, number)
        latents_VFCHW = self.pool.entry(clip, number).to(self.device)
        generator = seeded(self.seed, "noise", number)
        shared = self.method.shared_noise
        drawn = draw_noise(latents_VFCHW.shape, self.law, self.method.timesteps, generator, shared=shared)
        swaps_L = draw_layers(self.num_layers, self.method.alignment, generator)
        dropped = float(torch.rand((), generator=generator)) < self.text_drop
        text_embeds_1MC = self.text_embeds["" if dropped else self.pool.clips[clip].caption].to(self.device)
        timestep_1 = torch.tensor([drawn.timestep], device=self.device)
        noise_VFCHW = drawn.noise_BFCHW.to(self.device)
        call = None
        if self.method.twins:
            stills = self._stills(latents_VFCHW, noise_VFCHW, timestep_1, text_embeds_1MC)
            call = VideoCall(num_pairs=1, swaps_L=swaps_L, stills=stills)
        losses_VP = denoising_losses(
            self.predict,
            latents_VFCHW,
            noise_VFCHW,
            timestep_1,
            text_embeds_1MC,
            call,
            law=self.law,
        )
        return total_loss(losses_VP)

    @torch.no_grad()
    def _stills(
        self, latents_VFCHW: Tensor, noise_VFCHW: Tensor, timestep_1: Tensor, text_embeds_1MC: Tensor
    ) -> Stills | None:
        """What the model does with the original's frame 0 in all frames, if that is asked for."""
        alignment = self.method.alignment
        if not alignment.relative_to_still or alignment.tau == 100.0:
            return None
        stills = Stills(num_videos=1)
        still_1FCHW = latents_VFCHW[:1, :1].expand_as(latents_VFCHW[:1])
        noised_1FCHW = self.law.noised(still_1FCHW, noise_VFCHW[:1], timestep_1)
        self.predict(noised_1FCHW, timestep_1, text_embeds_1MC, VideoCall(stills=stills))
        return stills

"""What is seen of an action while it is learned: the user's own picture performs it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from .....flexiact.performance import Performance
from .....flexiact.sampling import TransferConfig, draw_start, draw_step_noise, guided, sample_latents
from .....flexiact.training.token_training import TokenTraining
from ...learning.encoders import vae_in_use
from ...learning.show import write_sample
from ..picture import fit
from .encode import encode_moments
from .plan import OneClipPlan
from .tokens import LearningTokens


@dataclass(frozen=True)
class Samples:
    """Videos of the picture with the tokens as they are; learning is not touched by them."""

    plan: OneClipPlan
    training: TokenTraining
    host: LearningTokens
    picture_1CHW: Tensor
    """Its scaled latent."""
    scale: float
    """Of latents."""

    def write(self, step: int) -> Path:
        """Sample with the clip's prompt, and write an animated picture."""
        with torch.inference_mode():
            return write_sample(self.plan.lesson.run_name, step, self._frames(self._latents(step)))

    def _latents(self, step: int) -> Tensor:
        host, lesson, device = self.host, self.plan.lesson, self.host.device
        texts = self.training.lesson
        shape, seed = host.input_shapes[0], self.plan.config.seed
        performance = Performance(action=self.training.learned("sample", step))
        with host.performing(performance, lesson.adapter, lesson.adapter_strength) as velocity:
            predict = guided(
                velocity,
                self.picture_1CHW.to(device),
                texts.text_of(0).to(device),
                texts.empty_embeds.to(device),
                TransferConfig.cfg,
            )
            return sample_latents(
                predict,
                draw_start(*shape, seed=seed).to(device),
                draw_step_noise(*shape, seed=seed),
                lesson.options.sample_steps,
            )

    def _frames(self, latents_FCHW: Tensor) -> Iterator[Tensor]:
        """Pictures (H, W, 3) in [0, 1], decoded as VAE Decode does."""
        vae = self.plan.lesson.vae
        with vae_in_use(vae):
            yield from vae.decode(rearrange(latents_FCHW / self.scale, "f c h w -> 1 c f h w").cpu())[0]


def picture_latent(plan: OneClipPlan, image_BHWC: Tensor, scale: float) -> Tensor:
    """The picture's scaled latent (1, C, h, w): cut to the model's size, the mean of what the VAE knows."""
    view = plan.source.parts[0].config
    fitted_1HWC = fit(image_BHWC[:1, ..., :3], (view.width, view.height))
    return encode_moments(plan.lesson.vae, scale, rearrange(fitted_1HWC, "1 h w c -> 1 c h w"))[0]

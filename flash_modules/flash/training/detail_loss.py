"""The loss of the detail decoder's training: mend distorted frames (FLASH, arXiv:2503.00276, A2.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from ...training.clips import Clip
from ...training.sampling import SamplingConfig, clip_at_step, seeded
from ..augment import AugmentConfig, crop
from ..distortion import DistortionConfig, distort
from .clip_draw import draw_clip

Rebuild = Callable[[Tensor, Tensor], Tensor]
"""``rebuild(distorted_FCHW, first_1CHW) -> mended_FCHW``: through the VAE, with details of the first frame;
all in [0, 1], the last one only about."""


@dataclass(frozen=True, kw_only=True)
class DetailSample:
    """What one micro-batch sees; RGB in [0, 1]."""

    first_1CHW: Tensor
    """The first true frame, which details come from."""
    true_FCHW: Tensor
    distorted_FCHW: Tensor


@dataclass(frozen=True, kw_only=True)
class DetailLoss:
    """The loss of a micro-batch: a function of its number and of the weights alone."""

    rebuild: Rebuild
    clips: Sequence[Clip]
    sampling: SamplingConfig
    augment: AugmentConfig
    """Its size, zoom and flip alone: the picture's own colours are to come back."""
    distortion: DistortionConfig
    frames: int
    """Frames of a micro-batch."""
    seed: int
    device: torch.device

    def __call__(self, number: int) -> Tensor:
        drawn = self.draw(number)
        mended_FCHW = self.rebuild(drawn.distorted_FCHW.to(self.device), drawn.first_1CHW.to(self.device))
        return mse_loss(mended_FCHW.float(), drawn.true_FCHW.to(self.device))

    def draw(self, number: int) -> DetailSample:
        """Clip, frames, crop and distortion of a micro-batch: a function of (seed, number) alone."""
        clip = self.clips[clip_at_step(self.clips, self.seed, number)]
        generator = seeded(self.seed, "detail", number)
        drawn = draw_clip(clip, self.sampling, self.augment, generator, choose=self._first_and_later)
        video_FCHW = crop(drawn.video_FCHW, self.augment.shape, drawn.augmentation)
        true_FCHW = video_FCHW[1:]
        return DetailSample(
            first_1CHW=video_FCHW[:1],
            true_FCHW=true_FCHW,
            distorted_FCHW=distort(true_FCHW, self.distortion, generator),
        )

    def _first_and_later(self, indices: Sequence[int], generator: torch.Generator) -> Sequence[int]:
        later = 1 + torch.randperm(len(indices) - 1, generator=generator)[: self.frames]
        return [indices[0], *(indices[i] for i in later.tolist())]

"""What is drawn of a clip: frames and an augmentation, and the pictures for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...training.clips import Clip
from ...training.sampling import SamplingConfig, Taken, take_frames
from ..augment import Augmentation, AugmentConfig, draw_augmentation

Choose = Callable[[Sequence[int], torch.Generator], Sequence[int]]
"""``choose(indices, generator) -> indices``: some of the frames that were taken."""


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """One draw of the many that a clip gives."""

    taken: Taken
    augmentation: Augmentation
    video_FCHW: Tensor
    """RGB in [0, 1], not yet cropped, of the frames that were taken or chosen of them."""


def draw_clip(
    clip: Clip,
    sampling: SamplingConfig,
    augment: AugmentConfig,
    generator: torch.Generator,
    *,
    choose: Choose = lambda indices, generator: indices,
) -> DrawnClip:
    """Draw frames and augmentation, and read the frames as large as the largest crop needs."""
    taken = take_frames(clip, sampling, generator)
    indices = choose(taken.indices, generator)
    augmentation = draw_augmentation(augment, generator)
    video_FCHW = clip.read(indices, short_side=augment.short_side)
    return DrawnClip(taken=taken, augmentation=augmentation, video_FCHW=video_FCHW)

"""What is drawn of a clip: frames and an augmentation, and the pictures for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...training.clips import Clip
from ...training.sampling import SamplingConfig, Taken, take_frames
from ..augment import Augmentation, AugmentConfig, augmented_pair, crop, draw_augmentation

Choose = Callable[[Sequence[int], torch.Generator], Sequence[int]]
"""``choose(indices, generator) -> indices``: some of the frames that were taken."""


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """One draw of the many that a clip gives."""

    clip: Clip
    taken: Taken
    indices: Sequence[int]
    """Of the frames that were taken or chosen of them."""
    augmentation: Augmentation
    video_FCHW: Tensor
    """RGB in [0, 1], not yet cropped, of those frames."""


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
    return DrawnClip(
        clip=clip, taken=taken, indices=indices, augmentation=augmentation, video_FCHW=video_FCHW
    )


def drawn_pair(drawn: DrawnClip, augment: AugmentConfig) -> tuple[Tensor, Tensor]:
    """The clip and its twin (F, C, H, W) in [0, 1], both flipped and cropped alike.

    A twin from elsewhere is shown as it is; without one, the clip is blurred and gets other colours.
    """
    video_FCHW, shape = drawn.video_FCHW, augment.shape
    if drawn.clip.twin is None:
        return augmented_pair(video_FCHW, shape, drawn.augmentation)
    twin_FCHW = drawn.clip.twin.read(drawn.indices, short_side=augment.short_side)
    if twin_FCHW.shape != video_FCHW.shape:  # else a crop of the one were off in the other, by rounding
        twin_FCHW = interpolate(twin_FCHW, video_FCHW.shape[-2:], mode="bilinear", antialias=True)
    return crop(video_FCHW, shape, drawn.augmentation), crop(twin_FCHW, shape, drawn.augmentation)

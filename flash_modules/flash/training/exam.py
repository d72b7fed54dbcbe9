"""The exam of an action: how well it does, where things move, on clips or looks that it never learns from.

Not in the paper (FLASH, arXiv:2503.00276): all of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import torch
from einops import rearrange
from torch import Tensor

from ...training.clips import Clip
from ...training.exam import steps_between
from ...training.sampling import SamplingConfig, clip_at_step, seeded
from ..augment import AugmentConfig, crop, restyle, strange_look
from .clip_draw import draw_clip
from .latent_pool import Encoder
from .loss import Predict, squared_errors
from .noise_law import NoiseLaw

_KEPT_OF, _MOST_KEPT = 6, 4
"""Of an action with so many clips or more, one of so many is kept aside, and at most four."""
_STILL = 1e-6
"""Motion of a place where nothing moves, so that a clip that stands still has an error, too."""


@dataclass(frozen=True, kw_only=True)
class ExamConfig:
    """What the exam asks."""

    videos: int = 2
    """Of what is kept aside, and as many of what is learned from; more if more actions or clips are kept."""
    timesteps: tuple[int, ...] = (300, 700)
    """At which each video is predicted."""

    def __post_init__(self) -> None:
        if self.videos < 1:
            raise ValueError(f"`videos` of an exam must be 1 or more, but it is {self.videos}.")
        if not self.timesteps or not all(0 <= timestep < 1000 for timestep in self.timesteps):
            raise ValueError(
                f"`timesteps` of an exam must lie between 0 and 999, but they are {self.timesteps}."
            )


def draw_aside(clips: Sequence[Clip], seed: int) -> tuple[int, ...]:
    """Indices of the clips that no step learns from: a sixth of each action, at most 4, drawn."""
    actions: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        actions.setdefault(clip.action, []).append(index)
    kept: list[int] = []
    for number, group in enumerate(actions.values()):
        order = torch.randperm(len(group), generator=seeded(seed, "kept aside", number)).tolist()
        kept += [group[i] for i in order[: min(len(group) // _KEPT_OF, _MOST_KEPT)]]
    return tuple(sorted(kept))


@dataclass(frozen=True, kw_only=True, eq=False)
class ExamVideo:
    """A video of the exam, as latents."""

    latents_1FCHW: Tensor
    caption: str
    name: tuple[str | int, ...]
    """Where its noise is drawn."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The videos of an exam, drawn and encoded when they are first asked for: the same in each sitting."""

    clips: Sequence[Clip]
    """That are learned from."""
    kept_aside: Sequence[Clip]
    least: int
    """Videos of each kind."""
    sampling: SamplingConfig
    augment: AugmentConfig
    seed: int
    encoder: Encoder

    @property
    def count(self) -> int:
        """Videos of each kind: at least one of each action, and of each clip that is kept aside."""
        return max(self.least, len({clip.action for clip in self.clips}), len(self.kept_aside))

    @cached_property
    def aside(self) -> Sequence[ExamVideo]:
        """Of the clips that are kept aside; where there are none, `learned` in looks that no step draws."""
        if self.kept_aside:
            return self._encoded(self._drawn(self.kept_aside, "aside"), "aside")
        return self._encoded(self._drawn(self.clips, "learned", strange=True), "learned")

    @cached_property
    def learned(self) -> Sequence[ExamVideo]:
        """Of the clips that are learned from, as they are."""
        return self._encoded(self._drawn(self.clips, "learned"), "learned")

    def _encoded(self, drawn: Iterator[tuple[Clip, Tensor]], place: str) -> Sequence[ExamVideo]:
        with self.encoder() as encode:
            return [
                ExamVideo(
                    latents_1FCHW=rearrange(encode(video_FCHW), "f c h w -> 1 f c h w").float().cpu(),
                    caption=clip.caption,
                    name=(place, number),
                )
                for number, (clip, video_FCHW) in enumerate(drawn)
            ]

    def _drawn(
        self, clips: Sequence[Clip], place: str, *, strange: bool = False
    ) -> Iterator[tuple[Clip, Tensor]]:
        """Videos (F, C, H, W) in [0, 1] of clips in turn; those in strange looks show the same frames."""
        for number in range(self.count):
            clip = clips[clip_at_step(clips, self.seed, number)]
            generator = seeded(self.seed, "exam", place, number)
            drawn = draw_clip(clip, self.sampling, self.augment, generator)
            video_FCHW = crop(drawn.video_FCHW, self.augment.shape, drawn.augmentation)
            if strange:
                video_FCHW = restyle(video_FCHW, strange_look(drawn.augmentation, self.augment, generator))
            yield clip, video_FCHW


@dataclass(frozen=True, kw_only=True)
class ActionExam:
    """Fulfils `training.exam.Exam`."""

    predict: Predict
    law: NoiseLaw
    questions: Questions
    timesteps: Sequence[int]
    text_embeds: Mapping[str, Tensor]
    """Embeddings (1, M, C) of each caption."""
    videos_of_a_step: int
    seed: int
    device: torch.device

    @property
    def every(self) -> int:
        """Steps between two: predictions are counted. A step has at least two of each video, for the way
        back takes as much as the way there."""
        predictions = 2 * self.questions.count * len(self.timesteps)
        return steps_between(predictions / (2 * self.videos_of_a_step))

    @torch.no_grad()
    def __call__(self) -> tuple[float, float]:
        """Mean errors with the weights as they are, each time of the same noise."""
        return self._error(self.questions.aside), self._error(self.questions.learned)

    def _error(self, videos: Sequence[ExamVideo]) -> float:
        return fmean(self._error_of(video, timestep) for video in videos for timestep in self.timesteps)

    def _error_of(self, video: ExamVideo, timestep: int) -> float:
        noise_1FCHW = torch.randn(
            video.latents_1FCHW.shape, generator=seeded(self.seed, "exam noise", *video.name, timestep)
        )
        errors_1GCHW = squared_errors(
            self.predict,
            video.latents_1FCHW.to(self.device),
            noise_1FCHW.to(self.device),
            torch.tensor([timestep], device=self.device),
            self.text_embeds[video.caption].to(self.device),
            None,
            law=self.law,
        )
        return weighted_by_motion(errors_1GCHW.float().cpu(), video.latents_1FCHW)


def weighted_by_motion(errors_BGCHW: Tensor, latents_BFCHW: Tensor) -> float:
    """The mean of errors of frames 1, 2, ..., each place weighted by how much the clip changes there.

    That is the squared difference of its latents to the frame before, the mean over channels.
    """
    changes_BGCHW = (latents_BFCHW[:, 1:] - latents_BFCHW[:, :-1]).square()
    weights_BGHW = changes_BGCHW.mean(dim=2) + _STILL
    return float((weights_BGHW * errors_BGCHW.mean(dim=2)).sum() / weights_BGHW.sum())

"""What a training of an action consists of beside its clips and models, and what of it may not change."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, get_args

import torch

from ...training.clips import Clip, clip_hashes
from ...training.loop import LoopConfig
from ...training.sampling import SamplingConfig
from ...training.settings import machine_settings
from ..action_file import Source
from ..augment import strange_hues
from .exam import ExamConfig, draw_aside
from .latent_pool import PoolConfig
from .method import MethodConfig
from .method_settings import run_method_settings

Checkpointing = Literal["none", "motion", "all"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)
"""What runs again in the backward pass, to save memory: nothing; the motion layers with the alignment; and
the blocks of the base model too."""


@dataclass(frozen=True, kw_only=True)
class ActionTrainingConfig:
    """Everything that a run consists of beside its clips and models."""

    method: MethodConfig = field(default_factory=MethodConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    text_drop: float = 0.1
    """Chance of the empty prompt in place of the caption: AnimateDiff's, for classifier-free guidance."""
    exam: ExamConfig | None = None
    """Of an action with six clips or more it keeps one of six aside, which no step learns from; with fewer
    its looks are such that no step draws. None = no exam, and every clip is learned from."""
    start: Source | None = None
    """The action that the run begins with; None = the motion module and the base as they are."""
    seed: int = 0
    checkpointing: Checkpointing = "none"
    dtype: torch.dtype = torch.float32
    """Of the computation and of the frozen weights; weights that learn are in fp32."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.text_drop <= 1.0:
            raise ValueError(f"`text_drop` is a chance between 0 and 1, but it is {self.text_drop}.")


def kept_aside(clips: Sequence[Clip], config: ActionTrainingConfig) -> Collection[int]:
    """Indices of the clips that no step learns from, for the exam."""
    return draw_aside(clips, config.seed) if config.exam else ()


Thing = TypeVar("Thing")


def parted(things: Sequence[Thing], aside: Collection[int]) -> tuple[list[Thing], list[Thing]]:
    """Those of clips that are learned from, and those of clips that are kept aside, by these indices."""
    learned = [thing for index, thing in enumerate(things) if index not in aside]
    return learned, [thing for index, thing in enumerate(things) if index in aside]


def check_twins(clips: Sequence[Clip], method: MethodConfig) -> None:
    """Raise ValueError if the clips have twins from elsewhere that no step would see."""
    if not method.twins and any(clip.twin for clip in clips):
        raise ValueError(
            "The clips have twins, but training without pairs (`twins` is off) never shows them: switch it "
            "on, or take the twins away."
        )


def run_settings(
    clips: Sequence[tuple[Clip, str]],
    fingerprints: Mapping[str, str],
    config: ActionTrainingConfig,
    micro_batches: int,
) -> dict[str, Any]:
    """`ActionTraining.settings` of clips with their hashes and of a host's fingerprints.

    Raises ValueError as `check_twins`.
    """
    check_twins([clip for clip, _ in clips], config.method)
    told = [
        {"action": clip.action, "caption": clip.caption, "sha256": sha256, **_twin_settings(clip)}
        for clip, sha256 in clips
    ]
    learned, aside = parted(told, kept_aside([clip for clip, _ in clips], config))
    return {
        "clips": learned,
        **_exam_settings(config, aside),
        **({"start": config.start.sha256} if config.start else {}),
        **fingerprints,
        "method": run_method_settings(config.method),
        "pool": {"per_clip": config.pool.per_clip, "renew_steps": config.pool.renew_micro_batches},
        "text_drop": config.text_drop,
        **machine_settings(config, micro_batches),
    }


def _twin_settings(clip: Clip) -> dict[str, Any]:
    """The clip's twin from elsewhere; nothing where there is none, as in runs from before."""
    return {"twin_sha256": clip_hashes([clip.twin])[0]} if clip.twin else {}


def _exam_settings(config: ActionTrainingConfig, aside: Sequence[Any]) -> dict[str, Any]:
    """What belongs to the exam; nothing where there is none, as in runs from before."""
    if config.exam is None:
        return {}
    kept = {"clips": aside} if aside else {"hues": strange_hues(config.method.augment)}
    return {"exam": {**asdict(config.exam), **kept}}

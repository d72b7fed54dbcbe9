"""What is compared in the study of transfer: ways to learn a motion in one look."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from flash_modules.flash.training.method import VARIANTS, MethodConfig

from .learning import Lesson

BEFORE = "before learning"
DETAILED = "#5"
"""The arm whose videos are also decoded with details, which is the paper's #6."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to learn."""

    method: MethodConfig = VARIANTS[5]
    drawn_twins: bool = False
    """Twins show the same motion in another look: what no augmentation of pictures does better."""
    per_clip: int = 16
    """Encoded versions of a clip."""
    renew_steps: int = 50
    """After so many an eighth of them is made anew; 0 = never."""
    learning_rate: float = 1e-3
    accumulation: int = 1
    """Originals alone come two at a time, so that all arms see as many videos."""

    def lesson(self, action: str, seed: int, steps: int, num_clips: int, size: int) -> Lesson:
        """This way to learn an action from clips of one person in one place."""
        return Lesson(
            actions=(action,),
            method=self.method,
            seed=seed,
            num_clips=num_clips,
            one_look=True,
            drawn_twins=self.drawn_twins,
            steps=steps,
            accumulation=self.accumulation,
            learning_rate=self.learning_rate,
            per_clip=self.per_clip,
            renew_steps=self.renew_steps,
            size=size,
        )


def _aligned(**changes: Any) -> Arm:
    method = VARIANTS[5]
    return Arm(method=replace(method, alignment=replace(method.alignment, **changes)))


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        BEFORE: Arm(),
        "perfect twins": Arm(method=VARIANTS[2], drawn_twins=True),
        "#2": Arm(method=VARIANTS[2]),
        "#5": Arm(),
        "#1, two at a time": Arm(method=VARIANTS[1], accumulation=2),
        "#5, beyond still": _aligned(relative_to_still=True),
        "#5, frame 0 left out": _aligned(exclude_first=True),
        "#5, after each module": _aligned(after_attention=False),
        "#5, perfect twins": Arm(drawn_twins=True),
        "#5, shared noise": Arm(method=replace(VARIANTS[5], shared_noise=True)),
    }
)
"""In the order in which they are run, seed after seed."""

"""The method's settings, and the variants of the paper's ablation."""

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from ..augment import AugmentConfig
from ..motion_alignment import AlignmentConfig
from .noise_law import TimestepConfig

PRESETS = {"draft": 256, "balanced": 384, "paper": 512}
"""Pixels of the square that is trained on."""

Trainable = Literal["attention", "motion_module"]
TRAINABLE: tuple[Trainable, ...] = get_args(Trainable)
"""What is trained of the motion modules; of the U-Net, it is the keys and values either way."""

_ATTENTION = re.compile(r".*\.attention_blocks\.\d+\.to_(q|k|v|out\.0)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """FLASH's training, as far as it is the paper's method: variant #5 of Table 2."""

    twins: bool = True
    """Train on pairs with strongly augmented twins, and not on the originals alone."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    shared_noise: bool = False
    """Give twins the noise of their originals; Eq. 2 can be read either way."""
    trainable: Trainable = "attention"
    """Projections of the temporal attentions, or whole motion modules."""

    def __post_init__(self) -> None:
        if self.trainable not in TRAINABLE:
            raise ValueError(
                f"`trainable` must be {' or '.join(TRAINABLE)}, but it is '{self.trainable}': attention is "
                "the paper's."
            )
        if not self.twins and (self.alignment.tau < 100.0 or self.alignment.p > 0.0):
            raise ValueError("Without twins nothing can be aligned: set `tau` to 100 and `p` to 0.")


VARIANTS = MappingProxyType(
    {
        1: MethodConfig(twins=False, alignment=AlignmentConfig(tau=100.0, p=0.0)),
        2: MethodConfig(alignment=AlignmentConfig(tau=100.0, p=0.0)),
        3: MethodConfig(alignment=AlignmentConfig(p=0.0)),
        4: MethodConfig(alignment=AlignmentConfig(tau=100.0)),
        5: MethodConfig(),
    }
)
"""FLASH (arXiv:2503.00276), Table 2, #1 to #5: originals alone; with twins; and motion features aligned;
correspondence aligned; both. #6 adds the decoder, which is trained apart."""


def is_trained(name: str, trainable: Trainable) -> bool:
    """Whether this weight of the motion model, by its name in AnimateDiff's files, is trained.

    "We only train the temporal attention layers" (A3.2). Not in the paper: that these are the projections
    q, k, v and out, without positions, norms and feed-forward; `motion_module` trains all.
    """
    return trainable == "motion_module" or _ATTENTION.fullmatch(name) is not None

"""Settings of learning from one clip, as the node offers them; the same defaults as on the command line."""

from dataclasses import dataclass, replace

from .....flexiact.sampling import TransferConfig
from .....flexiact.training.saving import SAVINGS, Saving
from .....flexiact.training.token_training import TokenTrainingConfig, token_loop

AUTO = "auto"
MEMORY: dict[str, tuple[Saving, ...]] = {
    AUTO: SAVINGS,
    **dict(zip(("most", "usual", "less", "little", "least"), ((one,) for one in SAVINGS), strict=True)),
}
"""What each choice may use; all give the same result. `auto` takes the fastest that fits."""

_LOOP = token_loop()


@dataclass(frozen=True, kw_only=True)
class OneClipOptions:
    """All that most users need not touch."""

    start: float = 0.0
    """Seconds of the clip, from which on frames are taken."""
    end: float = 0.0
    """Seconds; 0 is the clip's end."""
    memory: str = AUTO
    """One of MEMORY."""
    sample_every: int = _LOOP.save_steps
    """Steps of the training between two samples."""
    sample_steps: int = TransferConfig.steps
    """Steps in which a sample is made."""
    seed: int = 0
    learning_rate: float = _LOOP.learning_rate
    cooldown: float = _LOOP.cooldown
    accumulation: int = _LOOP.accumulation
    save_steps: int = _LOOP.save_steps
    keep: int = _LOOP.keep
    tokens: int = 226
    """Of each layer."""

    def config(self, steps: int) -> TokenTrainingConfig:
        """The training that these describe. Raises ValueError, in a sentence, for what cannot be."""
        loop = replace(
            _LOOP,
            steps=steps,
            learning_rate=self.learning_rate,
            cooldown=self.cooldown,
            accumulation=self.accumulation,
            save_steps=self.save_steps,
            keep=self.keep,
        )
        return TokenTrainingConfig(loop=loop, seed=self.seed)


def name_of(saving: Saving) -> str:
    """The choice that stands for it."""
    return next(name for name, savings in MEMORY.items() if savings == (saving,))

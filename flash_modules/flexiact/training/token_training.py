"""Training of an action's tokens on one clip: in any host."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...training.loop import LoopConfig, Processes, Shield, train
from ...training.run_folder import Progress, RunFolder
from ...training.sampling import seeded
from ..action_file import TransferAction
from ..noise_schedule import NUM_TIMESTEPS
from .encoded import EncodedView
from .lesson import Lesson
from .loss import LossConfig, noisy_latents, token_loss
from .views import ViewConfig

KNOWN_BY = (
    "time_embedding.linear_1.weight",
    "transformer_blocks.0.attn1.to_q.weight",
    "proj_out.weight",
)
"""Weights, by diffusers' names, whose hash a run knows its base by, in any host: all take minutes."""


def token_loop() -> LoopConfig:
    """FlexiAct's settings of AdamW; the paper trains 1,500 to 3,000 steps."""
    return LoopConfig(steps=2000, learning_rate=3e-3, betas=(0.9, 0.95), weight_decay=1e-4, save_steps=250)


@dataclass(frozen=True, kw_only=True)
class TokenTrainingConfig:
    """Everything that a run consists of beside its clip and model."""

    loss: LossConfig = field(default_factory=LossConfig)
    loop: LoopConfig = field(default_factory=token_loop)
    text_drop: float = 0.1
    """Chance of the empty prompt in place of the caption, for classifier-free guidance."""
    picture_drop: float = 0.05
    """Chance of zeros in place of the picture."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_drops(self.text_drop, self.picture_drop)


def check_drops(text_drop: float, picture_drop: float) -> None:
    """Raise ValueError unless both are chances."""
    for name, chance in (("text_drop", text_drop), ("picture_drop", picture_drop)):
        if not 0.0 <= chance <= 1.0:
            raise ValueError(f"`{name}` is a chance between 0 and 1, but it is {chance}.")


class Host(Protocol):
    """A CogVideoX whose attentions read tokens that learn; the RefAdapter is not in it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def tokens(self) -> Mapping[str, nn.Parameter]:
        """Tokens (M, C) in fp32, on the device, by their names in action files, layer by layer."""

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor:
        """Velocity (B, F, C, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a micro-batch sees: a function of the seed and its number alone. On the CPU."""

    view: int
    clean_FCHW: Tensor
    picture_FCHW: Tensor
    """The first frame's latent, then zeros; or zeros alone."""
    noise_FCHW: Tensor
    timestep: int
    pair: int
    """Of latent frames, whose difference counts."""
    with_text: bool


def draw(encoded: Sequence[EncodedView], config: TokenTrainingConfig, number: int) -> Drawn:
    """Draw view, latents, noise, timestep, pair of frames, and what is left out."""
    generator = seeded(config.seed, "tokens", number)
    view = int(torch.randint(len(encoded), (), generator=generator))
    clean_FCHW, picture_1CHW = encoded[view].draw(generator)
    picture_FCHW = torch.zeros_like(clean_FCHW)
    if float(torch.rand((), generator=generator)) >= config.picture_drop:
        picture_FCHW[:1] = picture_1CHW
    return Drawn(
        view=view,
        clean_FCHW=clean_FCHW,
        picture_FCHW=picture_FCHW,
        noise_FCHW=torch.randn(clean_FCHW.shape, generator=generator),
        timestep=int(torch.randint(NUM_TIMESTEPS, (), generator=generator)),
        pair=int(torch.randint(len(clean_FCHW) - 1, (), generator=generator)),
        with_text=float(torch.rand((), generator=generator)) >= config.text_drop,
    )


class TokenTraining:
    """A host and a lesson, ready for training."""

    def __init__(self, host: Host, lesson: Lesson, config: TokenTrainingConfig) -> None:
        self.host, self.lesson, self.config = host, lesson, config

    def loss(self, number: int) -> Tensor:
        """The loss of a micro-batch: a function of its number and of the tokens alone."""
        drawn, device = draw(self.lesson.views, self.config, number), self.host.device
        clean_FCHW, noise_FCHW = drawn.clean_FCHW.to(device), drawn.noise_FCHW.to(device)
        lesson = self.lesson
        text_embeds = lesson.text_of(drawn.view) if drawn.with_text else lesson.empty_embeds
        (velocity_FCHW,) = self.host.predict(
            noisy_latents(clean_FCHW, noise_FCHW, drawn.timestep)[None],
            drawn.picture_FCHW.to(device)[None],
            torch.tensor([drawn.timestep], device=device),
            text_embeds.to(device),
        )
        return token_loss(velocity_FCHW, clean_FCHW, noise_FCHW, drawn.timestep, drawn.pair, self.config.loss)

    def run(
        self,
        folder: RunFolder,
        *,
        processes: Processes | None = None,
        stopped: Callable[[], bool] = lambda: False,
        shield: Shield = nullcontext,
        on_step: Callable[[Progress], object] = lambda progress: None,
        on_note: Callable[[str], object] = lambda note: None,
    ) -> Progress:
        """Train until the end or a stop, as `training.loop.train`."""
        return train(
            folder,
            self.host.tokens,
            self.loss,
            self.config.loop,
            processes=processes,
            stopped=stopped,
            shield=shield,
            on_step=on_step,
            on_note=on_note,
        )

    def learned(self, name: str, steps: int) -> TransferAction:
        """The action as far as it is learned, in so many steps."""
        return TransferAction(
            name=name,
            tokens_LMC=torch.stack([tokens.detach().cpu() for tokens in self.host.tokens.values()]),
            steps=steps,
            prompt=self.lesson.caption,
            clip_sha256=self.lesson.clip_sha256,
        )


def run_settings(
    config: TokenTrainingConfig,
    *,
    clip_sha256: str,
    caption: str,
    view: ViewConfig,
    num_tokens: int,
    base: str,
    micro_batches: int,
) -> dict[str, Any]:
    """What may not change while a run goes on; a step has so many micro-batches, in all processes.

    `base` is what the host's weights are known by.
    """
    return {
        "clip": {"sha256": clip_sha256, "caption": caption},
        "view": asdict(view),
        "base": base,
        "tokens": num_tokens,
        "difference": config.loss.difference,
        "text_drop": config.text_drop,
        "picture_drop": config.picture_drop,
        **config.loop.settings,
        "parts_of_a_step": micro_batches,
        "seed": config.seed,
    }

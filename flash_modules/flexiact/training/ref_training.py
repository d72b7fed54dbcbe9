"""Training of a RefAdapter on many clips: in any host."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...training.clips import Clip
from ...training.loop import LoopConfig, train
from ...training.run_folder import Progress, RunFolder
from ...training.sampling import clip_at_step, seeded
from ..noise_schedule import NUM_TIMESTEPS
from ..ref_adapter_file import PARTS, LowRank, Part, RefAdapter
from .loss import noisy_latents, velocity_loss
from .ref_clips import EncodedClip, RefClipConfig
from .token_training import check_drops


def ref_adapter_loop() -> LoopConfig:
    """FlexiAct's settings of AdamW; the paper trains 40,000 steps of 8 clips."""
    return LoopConfig(steps=40_000, learning_rate=1e-5, betas=(0.9, 0.95), weight_decay=1e-4)


@dataclass(frozen=True, kw_only=True)
class RefTrainingConfig:
    """Everything that a run consists of beside its clips and model."""

    clips: RefClipConfig = field(default_factory=RefClipConfig)
    loop: LoopConfig = field(default_factory=ref_adapter_loop)
    rank: int = 64
    """Of the low-rank parts. Alpha is half of it, as the released adapter's 32 of 64."""
    text_drop: float = 0.1
    """Chance of the empty prompt in place of the caption, for classifier-free guidance."""
    picture_drop: float = 0.05
    """Chance of zeros in place of the picture."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_drops(self.text_drop, self.picture_drop)
        if self.rank < 1:
            raise ValueError(f"`rank` must be 1 or more, but it is {self.rank}: 64 is usual.")


class Host(Protocol):
    """A CogVideoX with low-rank layers beside its attentions' projections, which learn."""

    @property
    def device(self) -> torch.device: ...

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """Those of `new_low_ranks`, on the device."""

    def predict(
        self, latents_BFCHW: Tensor, picture_BFCHW: Tensor, timestep_B: Tensor, text_embeds_BMC: Tensor
    ) -> Tensor:
        """Velocity (B, F, C, h, w)."""


def weight_name(layer: int, part: Part, which: str) -> str:
    """Of a weight in checkpoints; `which` is "down" or "up"."""
    return f"{layer}.{part}.{which}"


def new_low_ranks(num_layers: int, rank: int, width: int, seed: int) -> dict[str, nn.Parameter]:
    """Weights down (R, C) and up (C, R) of each projection before training, in fp32.

    As in the released code: what goes down is drawn with a deviation of 1 / rank, what comes up is zeros.
    """
    weights = {}
    for layer in range(num_layers):
        for part in PARTS:
            down_RC = torch.randn(rank, width, generator=seeded(seed, "low rank", layer, part)) / rank
            weights[weight_name(layer, part, "down")] = nn.Parameter(down_RC)
            weights[weight_name(layer, part, "up")] = nn.Parameter(torch.zeros(width, rank))
    return weights


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a micro-batch sees: a function of the seed and its number alone. On the CPU."""

    clean_FCHW: Tensor
    """A window's latents, the first one replaced by the picture's."""
    picture_FCHW: Tensor
    """The picture's latent, then zeros; or zeros alone."""
    noise_FCHW: Tensor
    timestep: int
    with_text: bool


def draw(encoded: EncodedClip, config: RefTrainingConfig, number: int) -> Drawn:
    """Draw window, picture, latents, noise, timestep, and what is left out."""
    generator = seeded(config.seed, "ref-adapter", number)
    clean_FCHW, picture_1CHW = encoded.draw(generator)
    clean_FCHW[:1] = picture_1CHW
    picture_FCHW = torch.zeros_like(clean_FCHW)
    if float(torch.rand((), generator=generator)) >= config.picture_drop:
        picture_FCHW[:1] = picture_1CHW
    return Drawn(
        clean_FCHW=clean_FCHW,
        picture_FCHW=picture_FCHW,
        noise_FCHW=torch.randn(clean_FCHW.shape, generator=generator),
        timestep=int(torch.randint(NUM_TIMESTEPS, (), generator=generator)),
        with_text=float(torch.rand((), generator=generator)) >= config.text_drop,
    )


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """The clips, encoded; they may lie on the disk until they are asked for."""

    clips: Sequence[Clip]
    encoded: Callable[[int], EncodedClip]
    """Of the so-many-th clip."""
    text_embeds: Callable[[str], Tensor]
    """Of a clip's caption, or of the empty prompt: (1, M, C)."""


class RefTraining:
    """A host and clips, ready for training."""

    def __init__(self, host: Host, lessons: Lessons, config: RefTrainingConfig) -> None:
        self.host, self.lessons, self.config = host, lessons, config

    def loss(self, number: int) -> Tensor:
        """The loss of a micro-batch: a function of its number and of the weights alone."""
        clip = clip_at_step(self.lessons.clips, self.config.seed, number)
        drawn, device = draw(self.lessons.encoded(clip), self.config, number), self.host.device
        clean_FCHW, noise_FCHW = drawn.clean_FCHW.to(device), drawn.noise_FCHW.to(device)
        text_embeds = self.lessons.text_embeds(self.lessons.clips[clip].caption if drawn.with_text else "")
        (velocity_FCHW,) = self.host.predict(
            noisy_latents(clean_FCHW, noise_FCHW, drawn.timestep)[None],
            drawn.picture_FCHW.to(device)[None],
            torch.tensor([drawn.timestep], device=device),
            text_embeds.to(device),
        )
        return velocity_loss(velocity_FCHW, clean_FCHW, noise_FCHW, drawn.timestep)

    def run(self, folder: RunFolder, **watched: Any) -> Progress:
        """Train until the end or a stop, watched as `training.loop.train` says."""
        return train(folder, self.host.weights, self.loss, self.config.loop, **watched)

    def learned(self, name: str, steps: int, clip_hashes: Sequence[str] = ()) -> RefAdapter:
        """The adapter as far as it is learned, in so many steps, from clips with these hashes."""
        weights = {name: weight.detach().cpu().clone() for name, weight in self.host.weights.items()}
        layers = len(weights) // (2 * len(PARTS))
        told = {
            "data": {"n_clips": len(clip_hashes), "sha256": list(clip_hashes)},
            "rank": self.config.rank,
            "steps": steps,
            "lr": self.config.loop.learning_rate,
            "seed": self.config.seed,
        }
        return RefAdapter(
            name=name,
            parts={
                (layer, part): LowRank(
                    down_RC=weights[weight_name(layer, part, "down")],
                    up_CR=weights[weight_name(layer, part, "up")],
                    alpha=self.config.rank / 2,
                )
                for layer in range(layers)
                for part in PARTS
            },
            header={f"flash.{entry}": json.dumps(value) for entry, value in told.items()},
        )


def run_settings(
    config: RefTrainingConfig,
    clips: Sequence[Clip],
    *,
    clip_hashes: Sequence[str],
    base: str,
    micro_batches: int,
) -> dict[str, Any]:
    """What may not change while a run goes on; a step has so many micro-batches, in all processes.

    `base` is what the host's weights are known by.
    """
    return {
        "clips": [
            {"action": clip.action, "caption": clip.caption, "sha256": sha256}
            for clip, sha256 in zip(clips, clip_hashes, strict=True)
        ],
        "taken": asdict(config.clips),
        "base": base,
        "rank": config.rank,
        "text_drop": config.text_drop,
        "picture_drop": config.picture_drop,
        **config.loop.settings,
        "parts_of_a_step": micro_batches,
        "seed": config.seed,
    }

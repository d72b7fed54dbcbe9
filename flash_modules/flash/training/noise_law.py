"""How a base model is taught to denoise: its timesteps, noised latents, and what it is to predict."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from einops import rearrange
from torch import Tensor

from ...animatediff.noise_schedule import NUM_TIMESTEPS, Prediction, alphas_cumprod
from ..first_frame import replace_first_frame

Law = Literal["cosine", "shifted", "high noise"]
LAWS: tuple[Law, ...] = get_args(Law)
"""Of timesteps: the paper's; as a base of flow matching samples; of that, the noisier half of its steps."""


@dataclass(frozen=True, kw_only=True)
class TimestepConfig:
    """Law of the timesteps. "cosine" is p(t) ~ 1 - alpha cos(pi t / 1000), noisier ones more often.

    Not in the paper, which names no law: this is the one of its reference 30 (ReVersion, arXiv:2303.13495).
    """

    alpha: float = 0.5
    """Of "cosine": 0 = all timesteps alike."""
    law: Law = "cosine"
    """The others are for bases of flow matching (`FlowNoise`)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(
                f"`alpha` must lie between 0 and 1, but it is {self.alpha}: 0.5 is the usual one."
            )
        if self.law not in LAWS:
            raise ValueError(f"`law` must be one of {', '.join(LAWS)}, but it is '{self.law}'.")


class NoiseLaw(Protocol):
    """Of a base model."""

    def draw(self, config: TimestepConfig, generator: torch.Generator) -> float:
        """One timestep, by one number of the generator."""

    def noised(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """Latents at this timestep with frame 0 free of noise, <z0, z_t, ..., z_t> (FLASH, A2.1)."""

    def target(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """What the model is to predict."""


@dataclass(frozen=True)
class DiffusionNoise:
    """Noise of Stable Diffusion 1.5 (DDPM, arXiv:2006.11239): timesteps are whole, 0 to 999."""

    prediction: Prediction
    """What the model predicts: the noise, or the velocity v = sqrt(a_t) noise - sqrt(1 - a_t) z0."""

    def draw(self, config: TimestepConfig, generator: torch.Generator) -> int:
        """One timestep of 0 to 999: the first at which the distribution function exceeds a uniform number.

        Raises ValueError for laws of flow matching.
        """
        if config.law != "cosine":
            raise ValueError(f"The law of timesteps '{config.law}' is one of flow matching: take 'cosine'.")
        return _draw_cosine(config.alpha, generator)

    def noised(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """sqrt(a_t) z0 + sqrt(1 - a_t) noise, but for frame 0."""
        signal_B1111, spread_B1111 = _shares(timestep_B, latents_BFCHW)
        noised_BFCHW = signal_B1111 * latents_BFCHW + spread_B1111 * noise_BFCHW
        return replace_first_frame(noised_BFCHW, latents_BFCHW[:, :1])

    def target(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """The noise or the velocity."""
        if self.prediction == "epsilon":
            return noise_BFCHW
        signal_B1111, spread_B1111 = _shares(timestep_B, latents_BFCHW)
        return signal_B1111 * noise_BFCHW - spread_B1111 * latents_BFCHW


@dataclass(frozen=True)
class FlowNoise:
    """Noise of flow matching (arXiv:2210.02747): z_t = (1 - s) z0 + s noise, s = t / 1000 in (0, 1].

    The model predicts the velocity, noise - z0.
    """

    shift: float
    """With which the base samples: its steps are even in u, s = shift u / (1 + (shift - 1) u)
    (arXiv:2403.03206, Eq. 23)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.shift) and self.shift > 0.0):
            raise ValueError(
                f"`shift` must be a number above 0, but it is {self.shift}: Wan 2.2 usually takes 8."
            )

    def draw(self, config: TimestepConfig, generator: torch.Generator) -> float:
        """One timestep in (0, 1000].

        "shifted": u is uniform, as the sampler's steps are. "high noise": of the upper half of u, the steps
        in which motion is made. "cosine": the paper's law on t itself, whatever the shift.
        """
        if config.law == "cosine":
            return _draw_cosine(config.alpha, generator) + 1
        u = 1 - float(torch.rand((), generator=generator, dtype=torch.float64))
        if config.law == "high noise":
            u = (1 + u) / 2
        return NUM_TIMESTEPS * self.shift * u / (1 + (self.shift - 1) * u)

    def noised(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """(1 - s) z0 + s noise, but for frame 0."""
        s_B1111 = rearrange(timestep_B, "b -> b 1 1 1 1").to(latents_BFCHW) / NUM_TIMESTEPS
        noised_BFCHW = (1 - s_B1111) * latents_BFCHW + s_B1111 * noise_BFCHW
        return replace_first_frame(noised_BFCHW, latents_BFCHW[:, :1])

    def target(self, latents_BFCHW: Tensor, noise_BFCHW: Tensor, timestep_B: Tensor) -> Tensor:
        """The velocity, which is the same at all timesteps."""
        return noise_BFCHW - latents_BFCHW


def timestep_cdf(alpha: float) -> Tensor:
    """Chances (1000,) of a timestep of t or less: F(u) = u - alpha / pi sin(pi u), u = (t + 1) / 1000."""
    u_T = torch.arange(1, NUM_TIMESTEPS + 1, dtype=torch.float64) / NUM_TIMESTEPS
    return u_T - alpha / math.pi * torch.sin(math.pi * u_T)


def _draw_cosine(alpha: float, generator: torch.Generator) -> int:
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    return int(torch.searchsorted(timestep_cdf(alpha), uniform, right=True))


def _shares(timestep_B: Tensor, like_BFCHW: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), as (B, 1, 1, 1, 1) of this device and dtype; a_t are the products of
    1 - beta."""
    alphas_T = alphas_cumprod(torch.float64).to(like_BFCHW.device)
    alphas_B1111 = rearrange(alphas_T[timestep_B.to(like_BFCHW.device)], "b -> b 1 1 1 1")
    return alphas_B1111.sqrt().to(like_BFCHW), (1 - alphas_B1111).sqrt().to(like_BFCHW)

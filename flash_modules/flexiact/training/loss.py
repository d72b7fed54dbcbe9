"""FlexiAct's losses: of action tokens, and of RefAdapter."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..noise_schedule import alphas_cumprod


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The second term of the loss."""

    difference: float = 1.0
    """Weight of the difference between two neighbouring latent frames, which looks cancel in."""

    def __post_init__(self) -> None:
        if not 0 <= self.difference < math.inf:
            raise ValueError(
                f"`difference` must be 0 (off) or more, but it is {self.difference}: 1 is usual."
            )


def noisy_latents(clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
    """Latents at a timestep, in DDPM scale; at 999 they are noise alone."""
    alpha = float(alphas_cumprod()[timestep])
    return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise


def token_loss(
    velocity_FCHW: Tensor,
    clean_FCHW: Tensor,
    noise_FCHW: Tensor,
    timestep: int,
    pair: int,
    config: LossConfig,
) -> Tensor:
    """How far the predicted velocity is off, and the difference of frames `pair` and `pair + 1` in it.

    The released code writes the first term as the error of the clean latents over 1 - alpha, which is the
    error of the velocity, exactly. Not in the paper: the second term, which the released code adds
    (MotionDirector's, arXiv:2310.08465): (sqrt(2) x[i+1] - x[i]) of the clean latents that follow from the
    velocity, against the true ones.
    """
    off_FCHW = _off(velocity_FCHW, clean_FCHW, noise_FCHW, timestep)
    loss = off_FCHW.square().mean()
    if config.difference:
        off_clean_FCHW = -math.sqrt(1 - float(alphas_cumprod()[timestep])) * off_FCHW
        off_difference_CHW = math.sqrt(2) * off_clean_FCHW[pair + 1] - off_clean_FCHW[pair]
        loss = loss + config.difference * off_difference_CHW.square().mean()
    return loss


def velocity_loss(velocity_FCHW: Tensor, clean_FCHW: Tensor, noise_FCHW: Tensor, timestep: int) -> Tensor:
    """How far the predicted velocity is off: the first term of `token_loss`, and all of RefAdapter's loss."""
    return _off(velocity_FCHW, clean_FCHW, noise_FCHW, timestep).square().mean()


def _off(velocity_FCHW: Tensor, clean_FCHW: Tensor, noise_FCHW: Tensor, timestep: int) -> Tensor:
    alpha = float(alphas_cumprod()[timestep])
    return velocity_FCHW.float() - (math.sqrt(alpha) * noise_FCHW - math.sqrt(1 - alpha) * clean_FCHW)


def check_frames(latents_FCHW: Tensor) -> None:
    """Raise ValueError unless there are two latent frames to take a difference of."""
    if len(latents_FCHW) < 2:
        raise ValueError("A video needs 5 frames or more (2 latent ones) to learn an action from.")


def zero_tokens(num_layers: int, num_tokens: int, width: int) -> dict[str, torch.nn.Parameter]:
    """Tokens (M, C) of each layer before training, by their names in action files: zeros, fp32."""
    return {
        f"blocks.{layer}.tokens": torch.nn.Parameter(torch.zeros(num_tokens, width))
        for layer in range(num_layers)
    }

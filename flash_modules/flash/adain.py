"""AdaIN on a video's latents, against drift of colours."""

from dataclasses import dataclass

from einops import reduce
from torch import Tensor, lerp

from .first_frame import replace_first_frame


@dataclass(frozen=True, kw_only=True)
class AdaINConfig:
    strength: float = 1.0
    """0 = off, 1 = the first frame's statistics exactly."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.strength <= 1.0:
            raise ValueError(f"AdaIN strength must lie between 0 and 1, but it is {self.strength}.")


def adain(latents_FCHW: Tensor, config: AdaINConfig, *, eps: float = 1e-8) -> Tensor:
    """Give every later frame the per-channel mean and spread of frame 0; frame 0 is left as it is.

    AdaIN (arXiv:1703.06868) over H x W, unbiased variance, eps on the variance, as post-processing of the
    latent video like LAMP's (arXiv:2310.10769).
    """
    if latents_FCHW.ndim != 4:
        raise ValueError(
            "AdaIN needs a video of Stable Diffusion 1.5 latents (frames, channels, height, width), but the "
            f"shape is {tuple(latents_FCHW.shape)}: connect the latents of an SD 1.5 sampler."
        )
    if config.strength == 0.0:
        return latents_FCHW
    mean_FC11 = reduce(latents_FCHW, "f c h w -> f c 1 1", "mean")
    std_FC11 = (latents_FCHW.var(dim=(-2, -1), keepdim=True, unbiased=True) + eps).sqrt()
    styled_FCHW = (latents_FCHW - mean_FC11) / std_FC11 * std_FC11[:1] + mean_FC11[:1]
    return replace_first_frame(lerp(latents_FCHW, styled_FCHW, config.strength), latents_FCHW[:1])

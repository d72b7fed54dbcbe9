"""CogVideoX's own sampling: DPM-Solver++ (2M) as an SDE, on a schedule that begins with noise alone.

All latents are in DDPM scale: sqrt(alpha) * clean + sqrt(1 - alpha) * noise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .noise_schedule import alphas_cumprod, trailing_timesteps

Predict = Callable[[Tensor, int], Tensor]
"""``predict(latents_FCHW, timestep) -> velocity_FCHW``, guidance included."""
Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``velocity(latents_BFCHW, picture_BFCHW, timestep_B, text_embeds_BMC) -> velocity_BFCHW``."""


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """FlexiAct's settings of a run."""

    steps: int = 50
    cfg: float = 6.0
    """Weight of the prompt; 1 is the prompt alone."""

    def __post_init__(self) -> None:
        trailing_timesteps(self.steps)
        if not math.isfinite(self.cfg):
            raise ValueError(f"`cfg` must be a number, but it is {self.cfg}: 6 is a good start.")


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step does: latents := keep * latents + clean * denoised + spread * noise."""

    timestep: int
    alpha: float
    """Of the latents that the step begins with."""
    keep: float
    clean: float
    spread: float
    correction: float
    """How far the denoised latents are carried on from those of the step before; 0 in the first step, after
    one that began with noise alone, infinitely far away, and in the last."""


def dpm_steps(num_steps: int) -> list[Step]:
    """The steps of a run; the last one ends at clean latents.

    DPM-Solver++ (arXiv:2211.01095), 2M as an SDE, in closed form, so that no infinite signal-to-noise ratio
    is ever computed. Deviation: where num_steps does not divide 1000, diffusers' CogVideoXDPMScheduler ends
    its steps up to one timestep off where the next one begins, and may never reach clean latents; ours end
    there, and do.
    """
    timesteps = trailing_timesteps(num_steps)
    return steps_between(timesteps, [*(float(alphas_cumprod()[t]) for t in timesteps), 1.0])


def steps_between(timesteps: Sequence[int], alphas: Sequence[float]) -> list[Step]:
    """The steps that begin at these timesteps, from each alpha to the next: 0 is noise alone, 1 clean."""
    steps = []
    for i, timestep in enumerate(timesteps):
        alpha, after = alphas[i], alphas[i + 1]
        shrink = math.sqrt(
            alpha / after * (1 - after) / (1 - alpha)
        )  # exp(-h), h the growth of the log SNR / 2
        steps.append(
            Step(
                timestep=timestep,
                alpha=alpha,
                keep=shrink * math.sqrt((1 - after) / (1 - alpha)),
                clean=(1 - shrink**2) * math.sqrt(after),
                spread=math.sqrt((1 - after) * (1 - shrink**2)),
                correction=_correction(alphas, i),
            )
        )
    return steps


def _correction(alphas: Sequence[float], i: int) -> float:
    """Half of this step's growth of the log SNR over that of the step before."""
    if i < 1 or alphas[i - 1] == 0.0 or alphas[i + 1] == 1.0:
        return 0.0
    before, now, after = (0.5 * math.log(alpha / (1 - alpha)) for alpha in alphas[i - 1 : i + 2])
    return (after - now) / (2 * (now - before))


def denoised_latents(velocity: Tensor, latents: Tensor, step: Step) -> Tensor:
    """Clean latents, from the velocity (arXiv:2202.00512, appendix D) that the model found in noisy ones."""
    return math.sqrt(step.alpha) * latents - math.sqrt(1 - step.alpha) * velocity


def dpm_step(
    latents: Tensor, denoised: Tensor, denoised_before: Tensor | None, noise: Tensor, step: Step
) -> Tensor:
    """Latents one step further on. `denoised_before` is that of the step before, None in the first."""
    if denoised_before is not None and step.correction:
        denoised = denoised + step.correction * (denoised - denoised_before)
    return step.keep * latents + step.clean * denoised + step.spread * noise


def guided(velocity: Velocity, picture_1CHW: Tensor, prompt: Tensor, negative: Tensor, cfg: float) -> Predict:
    """A `Predict` for a video that starts with this picture, a scaled latent (1, C, H, W).

    `prompt` and `negative` are text embeddings (1, M, C). The two predictions of a step run one after the
    other, which takes half the memory of a batch. cfg 1 is the prompt alone (arXiv:2207.12598).
    """

    def predict(latents_FCHW: Tensor, timestep: int) -> Tensor:
        picture_FCHW = torch.zeros_like(latents_FCHW)
        picture_FCHW[:1] = picture_1CHW
        timestep_1 = torch.tensor([timestep], device=latents_FCHW.device)
        cond, *uncond = (
            velocity(latents_FCHW[None], picture_FCHW[None], timestep_1, text_embeds)[0]
            for text_embeds in ((prompt,) if cfg == 1 else (prompt, negative))
        )
        return uncond[0] + cfg * (cond - uncond[0]) if uncond else cond

    return predict


def draw_start(num_frames: int, channels: int, height: int, width: int, seed: int) -> Tensor:
    """The noise (F, C, H, W) that a run starts with, equal on all devices and in all hosts."""
    return next(_draw((channels, num_frames, height, width), seed))


def draw_step_noise(num_frames: int, channels: int, height: int, width: int, seed: int) -> Iterator[Tensor]:
    """Noise (F, C, H, W) of each step of a run, without end: of the seed after the start's."""
    return _draw((channels, num_frames, height, width), seed + 1)


def _draw(shape_CFHW: tuple[int, int, int, int], seed: int) -> Iterator[Tensor]:
    """On the CPU and in fp32; channels come first, as in ComfyUI's latents."""
    generator = torch.Generator("cpu").manual_seed(seed)
    while True:
        noise_CFHW = torch.randn(shape_CFHW, generator=generator, dtype=torch.float32)
        yield rearrange(noise_CFHW, "c f h w -> f c h w")


@torch.inference_mode()
def sample_latents(
    predict: Predict,
    start_FCHW: Tensor,
    noises_FCHW: Iterator[Tensor],
    num_steps: int,
    on_step: Callable[[], object] = lambda: None,
) -> Tensor:
    """Clean latents (F, C, H, W) after a run that starts with noise; latents stay in the start's dtype."""
    latents_FCHW, before_FCHW = start_FCHW, None
    for step in dpm_steps(num_steps):
        velocity_FCHW = predict(latents_FCHW, step.timestep)
        denoised_FCHW = denoised_latents(velocity_FCHW, latents_FCHW, step)
        noise_FCHW = next(noises_FCHW).to(latents_FCHW)
        latents_FCHW = dpm_step(latents_FCHW, denoised_FCHW, before_FCHW, noise_FCHW, step)
        before_FCHW = denoised_FCHW
        on_step()
    return latents_FCHW

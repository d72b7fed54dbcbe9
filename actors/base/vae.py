"""The VAE of the small base: its training, and the scale of its latents."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange, repeat
from torch import Tensor, nn

from .models import new_vae
from .pool import ClipPool
from .sizes import NUM_FRAMES
from .training import Limit, Recipe, averaged_weights, generator, train, where


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Settings of the VAE's training."""

    batch: int = 4
    """Frames of a step."""
    figures: float = 3.0
    """Weight of people and things, where places have 1: they are small."""
    edges: float = 0.5
    """Weight of the differences between neighbouring pixels."""
    kl: float = 4e-6
    noise: float = 0.1
    """Noise on latents, in their standard deviations, so that the decoder bears small errors."""


RECIPE = Recipe(lr=1e-3, parts=("vae",), weight_decay=1e-4)


def train_vae(
    out: Path,
    pool: ClipPool,
    limit: Limit,
    *,
    seed: int,
    config: VAEConfig | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Train the VAE on frames of the pool, into out/vae."""
    config = config or VAEConfig()
    vae = new_vae(seed).to(device, memory_format=torch.channels_last).train()
    frames_KFHW3, figures_KFHW = pool.frames_KFHW3.to(device), pool.figures_KFHW.to(device)

    def loss_of_step(step: int, over: float) -> Tensor:
        draws = generator(seed, "vae", step, device)
        clips, frames, mirrored = (
            torch.randint(limit, (config.batch,), generator=draws, device=device)
            for limit in (len(pool), NUM_FRAMES, 2)
        )
        pixels_BCHW = to_pixels(frames_KFHW3[clips, frames])
        figures_BHW = figures_KFHW[clips, frames].float() / 255
        flip_B = mirrored.bool()[:, None, None]
        pixels_BCHW = torch.where(flip_B[..., None], pixels_BCHW.flip(-1), pixels_BCHW)
        figures_BHW = torch.where(flip_B, figures_BHW.flip(-1), figures_BHW)
        return vae_loss(vae, pixels_BCHW, figures_BHW, config, draws)

    train(out / "vae", nn.ModuleDict({"vae": vae}), loss_of_step, RECIPE, limit)


def to_pixels(frames_BHW3: Tensor) -> Tensor:
    """Frames in uint8 as pixels in [-1, 1]."""
    pixels_BCHW: Tensor = rearrange(frames_BHW3, "b h w c -> b c h w").float() / 127.5 - 1
    return pixels_BCHW.contiguous(memory_format=torch.channels_last)


def vae_loss(
    vae: AutoencoderKL,
    pixels_BCHW: Tensor,
    figures_BHW: Tensor,
    config: VAEConfig,
    draws: torch.Generator | None = None,
) -> Tensor:
    """L1 and MSE of pixels, L1 of their differences, and the KL of Stable Diffusion's VAE.

    `figures_BHW` says how much of each latent pixel people and things cover.
    """
    posterior = vae.encode(pixels_BCHW).latent_dist
    latents_BCHW = posterior.sample(draws)
    spread_C11 = posterior.mean.detach().float().std(dim=(0, 2, 3))[:, None, None]
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=draws, device=latents_BCHW.device)
    decoded_BCHW = vae.decode(latents_BCHW + config.noise * spread_C11 * noise_BCHW).sample.float()
    size = pixels_BCHW.shape[-1] // figures_BHW.shape[-1]
    weights_B1HW = 1 + (config.figures - 1) * repeat(figures_BHW, "b h w -> b 1 (h y) (w x)", y=size, x=size)
    error_BCHW = decoded_BCHW - pixels_BCHW
    loss: Tensor = (weights_B1HW * (error_BCHW.abs() + error_BCHW.square())).mean()
    for axis in (2, 3):
        loss = loss + config.edges * error_BCHW.diff(dim=axis).abs().mean()
    kl: Tensor = posterior.kl().mean()
    return loss + config.kl * kl


def finished_vae(out: Path, pool: ClipPool, device: torch.device | str = "cpu") -> tuple[AutoencoderKL, Path]:
    """The trained VAE with normalised latents, as it will be in fp16, and the folder where it is kept.

    The folder's name holds the step, so more training gives another VAE.
    """
    folder = out / "vae" / f"step-{where(out / 'vae')['steps']}"
    if not (folder / "config.json").is_file():
        vae = new_vae(0)
        vae.load_state_dict(averaged_weights(out / "vae", "vae"))
        frames = [
            torch.from_numpy(pool.frame(clip, 5 * i % NUM_FRAMES).copy())
            for i, clip in enumerate(range(0, len(pool), max(1, len(pool) // 512)))
        ]
        normalise_latents(vae.to(device), to_pixels(torch.stack(frames).to(device)))
        vae.half().save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True)
    return vae.to(device).eval().requires_grad_(False), folder


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pixels_BCHW: Tensor) -> None:
    """Give the scaled latents of these pixels mean 0 and spread 1 in each channel; pictures stay the same.

    The 1x1 convolutions around the latents take it in, so that the scaling factor stays that of SD 1.5.
    """
    means_BCHW = torch.cat([vae.encode(part).latent_dist.mean for part in torch.split(pixels_BCHW, 16)])
    shift_C = means_BCHW.mean(dim=(0, 2, 3))
    factor_C = 1 / (vae.config.scaling_factor * means_BCHW.std(dim=(0, 2, 3)))
    c = len(shift_C)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:c] *= factor_C[:, None, None, None]
    before.bias[:c] = (before.bias[:c] - shift_C) * factor_C
    before.bias[c:] += 2 * factor_C.log()
    after.bias += after.weight[:, :, 0, 0] @ shift_C
    after.weight /= factor_C[:, None, None]

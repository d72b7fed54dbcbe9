"""The VAE of the small base: its training, and the scale of its latents."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from .models import NUM_FRAMES, new_vae
from .pool import ClipPool
from .training import Limit, Recipe, averaged_weights, generator, train, where


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Settings of the VAE's training."""

    batch: int = 8
    """Crops of a step; a step of whole frames has a quarter."""
    crop: int = 64
    """Pixels of a crop, in each direction."""
    frames_every: int = 2
    """Every so many steps the batch is whole frames: norms and the middle attention see no crops later."""
    edges: float = 0.5
    """Weight of the differences between neighbouring pixels."""
    kl: float = 4e-6
    noise: float = 0.1
    """Noise on latents, in their standard deviations, so that the decoder bears small errors."""


RECIPE = Recipe(lr=1e-3, parts=("vae",), weight_decay=1e-4)


def train_vae(out: Path, pool: ClipPool, limit: Limit, *, seed: int, config: VAEConfig | None = None) -> None:
    """Train the VAE on frames of the pool, into out/vae."""
    config = config or VAEConfig()
    vae = new_vae(seed).to(memory_format=torch.channels_last).train()

    def loss_of_step(step: int) -> Tensor:
        draws = generator(seed, "vae", step)
        whole = step % config.frames_every == config.frames_every - 1
        pixels_BCHW = draw_pixels(pool, config, draws, whole=whole)
        return vae_loss(vae, pixels_BCHW, config, draws)

    train(out / "vae", nn.ModuleDict({"vae": vae}), loss_of_step, RECIPE, limit)


def draw_pixels(pool: ClipPool, config: VAEConfig, draws: torch.Generator, *, whole: bool) -> Tensor:
    """Random crops, or whole frames, of random frames of the pool, half of them mirrored."""
    count = max(1, config.batch // 4) if whole else config.batch
    return torch.cat([_draw_crop(pool, None if whole else config.crop, draws) for _ in range(count)])


def _draw_crop(pool: ClipPool, crop: int | None, draws: torch.Generator) -> Tensor:
    frame_HW3 = pool.frame(_below(len(pool), draws), _below(NUM_FRAMES, draws))
    if crop is not None:
        top, left = (_below(size - crop + 1, draws) for size in frame_HW3.shape[:2])
        frame_HW3 = frame_HW3[top : top + crop, left : left + crop]
    pixels_1CHW = to_pixels(torch.from_numpy(frame_HW3.copy())[None])
    return pixels_1CHW.flip(3) if _below(2, draws) else pixels_1CHW


def _below(limit: int, draws: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=draws))


def to_pixels(frames_BHW3: Tensor) -> Tensor:
    """Frames in uint8 as pixels in [-1, 1]."""
    pixels_BCHW: Tensor = rearrange(frames_BHW3, "b h w c -> b c h w").float() / 127.5 - 1
    return pixels_BCHW.contiguous(memory_format=torch.channels_last)


def vae_loss(
    vae: AutoencoderKL, pixels_BCHW: Tensor, config: VAEConfig, draws: torch.Generator | None = None
) -> Tensor:
    """L1 and MSE of pixels, L1 of their differences, and the KL of Stable Diffusion's VAE."""
    posterior = vae.encode(pixels_BCHW).latent_dist
    latents_BCHW = posterior.sample(draws)
    spread_C11 = posterior.mean.detach().std(dim=(0, 2, 3))[:, None, None]
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=draws)
    decoded_BCHW = vae.decode(latents_BCHW + config.noise * spread_C11 * noise_BCHW).sample
    loss: Tensor = l1_loss(decoded_BCHW, pixels_BCHW) + mse_loss(decoded_BCHW, pixels_BCHW)
    for axis in (2, 3):
        loss = loss + config.edges * l1_loss(decoded_BCHW.diff(dim=axis), pixels_BCHW.diff(dim=axis))
    kl: Tensor = posterior.kl().mean()
    return loss + config.kl * kl


def finished_vae(out: Path, pool: ClipPool) -> tuple[AutoencoderKL, Path]:
    """The trained VAE with normalised latents, as it will be in fp16, and the folder where it is kept.

    The folder's name holds the step, so more training gives another VAE.
    """
    folder = out / "vae" / f"step-{where(out / 'vae')['steps']}"
    if not (folder / "config.json").is_file():
        vae = new_vae(0)
        vae.load_state_dict(averaged_weights(out / "vae", "vae"))
        stride = max(1, len(pool) // 512)
        frames_BHW3 = [
            torch.from_numpy(pool.frame(clip, 5 * i % NUM_FRAMES).copy())
            for i, clip in enumerate(range(0, len(pool), stride))
        ]
        normalise_latents(vae, to_pixels(torch.stack(frames_BHW3)))
        vae.half().save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder, local_files_only=True)
    return vae.eval().requires_grad_(False), folder


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

"""The pool as latents and tokens: what the U-Net is trained on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from .models import NUM_FRAMES
from .pool import ClipPool, save_array
from .tokenizer import tokens_of
from .vae import to_pixels


def encode_pool(folder: Path, pool: ClipPool, vae: AutoencoderKL) -> Tensor:
    """Scaled latents (K, F, C, H, W) of all clips in fp16, from the folder where it has them."""
    folder.mkdir(parents=True, exist_ok=True)
    vae = vae.to(memory_format=torch.channels_last)
    parts = []
    for path, clips_KFHW3 in zip(tqdm(pool.paths, desc="latents"), pool.chunks_KFHW3, strict=True):
        if not (folder / path.name).is_file():
            save_array(folder / path.name, _encode(vae, clips_KFHW3))
        parts.append(torch.from_numpy(np.load(folder / path.name)))
    return torch.cat(parts)[: len(pool)]


@torch.inference_mode()
def _encode(vae: AutoencoderKL, clips_KFHW3: np.ndarray) -> np.ndarray:
    frames_XHW3 = rearrange(torch.from_numpy(np.array(clips_KFHW3)), "k f h w c -> (k f) h w c")
    means_XCHW = torch.cat(
        [vae.encode(to_pixels(part)).latent_dist.mean for part in torch.split(frames_XHW3, 16)]
    )
    latents_XCHW = (means_XCHW * vae.config.scaling_factor).half().contiguous()
    latents_KFCHW: np.ndarray = rearrange(latents_XCHW.numpy(), "(k f) c h w -> k f c h w", f=NUM_FRAMES)
    return latents_KFCHW


@dataclass(frozen=True)
class Dataset:
    """Clips as latents, with their captions."""

    latents_KFCHW: Tensor
    """fp16"""
    captions: list[str]
    tokenizer: CLIPTokenizer

    @cached_property
    def tokens_KM(self) -> Tensor:
        return torch.stack([tokens_of(self.tokenizer, caption) for caption in self.captions])

    @cached_property
    def empty_M(self) -> Tensor:
        """The empty prompt, for classifier-free guidance."""
        return tokens_of(self.tokenizer, "")

    def draw_clips(self, count: int, draws: torch.Generator, drop: float) -> tuple[Tensor, Tensor]:
        """Random clips (B, F, C, H, W) in fp32 with tokens (B, M), some of them of the empty prompt."""
        clips = torch.randint(len(self.captions), (count,), generator=draws)
        return self.latents_KFCHW[clips].float(), self._some_tokens(clips, draws, drop)

    def draw_pairs(self, count: int, draws: torch.Generator, drop: float) -> tuple[Tensor, Tensor]:
        """Two different frames each of random clips (B, 2, C, H, W), as draw_clips."""
        latents_BFCHW, tokens_BM = self.draw_clips(count, draws, drop)
        pairs_B2 = torch.rand(latents_BFCHW.shape[:2], generator=draws).argsort(dim=1)[:, :2]
        return latents_BFCHW[torch.arange(count)[:, None], pairs_B2], tokens_BM

    def draw_pictures(self, count: int, draws: torch.Generator, drop: float) -> tuple[Tensor, Tensor]:
        """Random frames (B, C, H, W) of random clips, as draw_clips."""
        clips = torch.randint(len(self.captions), (count,), generator=draws)
        frames = torch.randint(self.latents_KFCHW.shape[1], (count,), generator=draws)
        return self.latents_KFCHW[clips, frames].float(), self._some_tokens(clips, draws, drop)

    def _some_tokens(self, clips: Tensor, draws: torch.Generator, drop: float) -> Tensor:
        dropped_B1 = torch.rand((len(clips), 1), generator=draws) < drop
        return torch.where(dropped_B1, self.empty_M, self.tokens_KM[clips])

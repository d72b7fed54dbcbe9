"""The pool as latents and tokens: what the U-Net is trained on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTokenizer

from .pool import ClipPool, save_array
from .sizes import NUM_FRAMES
from .tokenizer import tokens_of
from .vae import to_pixels

_AT_ONCE = {"cpu": 16, "cuda": 400}
"""Frames that are encoded together."""


class Batch(NamedTuple):
    """What is drawn for a step: clips (B, F, ...), pairs (B, 2, ...), or pictures (B, ...)."""

    latents: Tensor
    """In fp32, with axes C, H and W."""
    tokens_BM: Tensor
    figures: Tensor
    """How much of each latent pixel people and things cover, from 0 to 1, with axes H and W."""


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
    parts = torch.split(frames_XHW3.to(vae.device), _AT_ONCE[vae.device.type])
    means_XCHW = torch.cat([vae.encode(to_pixels(part)).latent_dist.mean for part in parts])
    latents_XCHW = (means_XCHW * vae.config.scaling_factor).half().contiguous().cpu()
    latents_KFCHW: np.ndarray = rearrange(latents_XCHW.numpy(), "(k f) c h w -> k f c h w", f=NUM_FRAMES)
    return latents_KFCHW


@dataclass(frozen=True)
class Dataset:
    """Clips as latents, with their captions; batches are drawn where the latents are."""

    latents_KFCHW: Tensor
    """fp16"""
    figures_KFHW: Tensor
    """uint8; see `ClipPool.figures_KFHW`."""
    captions: list[str]
    tokenizer: CLIPTokenizer

    @property
    def device(self) -> torch.device:
        return self.latents_KFCHW.device

    @cached_property
    def tokens_KM(self) -> Tensor:
        known = {text: tokens_of(self.tokenizer, text) for text in dict.fromkeys(self.captions)}
        return torch.stack([known[text] for text in self.captions]).to(self.device)

    @cached_property
    def empty_M(self) -> Tensor:
        """The empty prompt, for classifier-free guidance."""
        return tokens_of(self.tokenizer, "").to(self.device)

    def draw_clips(self, count: int, draws: torch.Generator, drop: float) -> Batch:
        """Random clips, some of them with the empty prompt."""
        clips = self._below(len(self.captions), count, draws)
        return self._batch(clips, slice(None), draws, drop)

    def draw_pairs(self, count: int, draws: torch.Generator, drop: float) -> Batch:
        """Two different frames each of random clips, as draw_clips."""
        clips = self._below(len(self.captions), count, draws)
        order_BF = torch.rand((count, self.latents_KFCHW.shape[1]), generator=draws, device=self.device)
        return self._batch(clips[:, None], order_BF.argsort(dim=1)[:, :2], draws, drop)

    def draw_pictures(self, count: int, draws: torch.Generator, drop: float) -> Batch:
        """Random frames of random clips, as draw_clips."""
        clips = self._below(len(self.captions), count, draws)
        frames = self._below(self.latents_KFCHW.shape[1], count, draws)
        return self._batch(clips, frames, draws, drop)

    def _below(self, limit: int, count: int, draws: torch.Generator) -> Tensor:
        return torch.randint(limit, (count,), generator=draws, device=self.device)

    def _batch(self, clips: Tensor, frames: Tensor | slice, draws: torch.Generator, drop: float) -> Batch:
        dropped_B1 = torch.rand((len(clips), 1), generator=draws, device=self.device) < drop
        return Batch(
            self.latents_KFCHW[clips, frames].float(),
            torch.where(dropped_B1, self.empty_M, self.tokens_KM[clips.flatten()]),
            self.figures_KFHW[clips, frames].float() / 255,
        )

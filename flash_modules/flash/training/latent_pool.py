"""Latents of clip pairs, encoded once and renewed slowly: the VAE would be a third of every step's work.

Not in the paper, whose training loop it leaves as it is.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...files.tensor_file import read_tensors, write_tensors
from ...training.clips import Clip
from ...training.sampling import SamplingConfig, seeded
from ..augment import AugmentConfig, crop
from .clip_draw import DrawnClip, draw_clip, drawn_pair

Encode = Callable[[Tensor], Tensor]
"""``encode(video_FCHW) -> latents_FCHW``: pixels in [0, 1] to scaled latents, the posterior's mean."""
Encoder = Callable[[], AbstractContextManager[Encode]]
"""Fetches the VAE to where it runs, and takes it away again."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How many latents there are at a time, and how long they last."""

    per_clip: int = 16
    """Entries of a clip: other frames, crops and twins of it."""
    renew_micro_batches: int = 200
    """After so many an eighth of the entries is made anew; 0 = never."""
    memory_gib: float = 4.0
    """Beyond this the pool lies on disk."""

    def __post_init__(self) -> None:
        if self.per_clip < 1:
            raise ValueError(f"`per_clip` must be 1 or more, but it is {self.per_clip}.")
        if not self.memory_gib >= 0.0:
            raise ValueError(f"`memory_gib` must be 0 or more, but it is {self.memory_gib}.")
        if self.renew_micro_batches < 0:
            raise ValueError(
                f"`renew_micro_batches` must be 0 (never) or more, but it is {self.renew_micro_batches}."
            )


class LatentPool:
    """Entries (V, F, C, h, w) in fp16: a clip and, where there are twins, its twin.

    What an entry holds depends on (seed, clip, entry, round) alone, and its round on the step, so that a pool
    that is made again is the same.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        config: PoolConfig,
        sampling: SamplingConfig,
        augment: AugmentConfig,
        encoder: Encoder,
        folder: Path,
        *,
        twins: bool,
        seed: int,
    ) -> None:
        self.clips, self.config, self.sampling, self.augment = clips, config, sampling, augment
        self.encoder, self.folder, self.twins, self.seed = encoder, folder, twins, seed
        self._entries: dict[int, tuple[int, Tensor | Path]] = {}
        """By number: the round, and the latents or where they lie."""

    def __len__(self) -> int:
        return len(self.clips) * self.config.per_clip

    def round_at(self, number: int, micro_batch: int) -> int:
        """How often the entry was renewed before this micro-batch: the entries take turns."""
        if not self.config.renew_micro_batches:
            return 0
        group = max(1, len(self) // 8)
        renewed = micro_batch // self.config.renew_micro_batches * group
        return (renewed + len(self) - 1 - number) // len(self)

    def prepare(self, micro_batch: int, on_entry: Callable[[], object] = lambda: None) -> None:
        """Make all entries that this micro-batch needs and the pool has not."""
        stale = [number for number in range(len(self)) if self._is_stale(number, micro_batch)]
        if not stale:
            return
        with self.encoder() as encode:
            for number in stale:
                self._make(number, self.round_at(number, micro_batch), encode)
                on_entry()

    def _is_stale(self, number: int, micro_batch: int) -> bool:
        return number not in self._entries or self._entries[number][0] != self.round_at(number, micro_batch)

    def entry(self, clip: int, micro_batch: int) -> Tensor:
        """The latents (V, F, C, h, w), in fp32, that this micro-batch sees of a clip."""
        choice = torch.randint(self.config.per_clip, (), generator=seeded(self.seed, "entry", micro_batch))
        number = clip * self.config.per_clip + int(choice)
        if self._is_stale(number, micro_batch):
            self.prepare(micro_batch)
        _, kept = self._entries[number]
        latents = read_tensors(kept)[0]["latents"] if isinstance(kept, Path) else kept
        return latents.float()

    def _make(self, number: int, turn: int, encode: Encode) -> None:
        videos = self.draw_videos(number, turn)
        latents_VFCHW = torch.stack([encode(video_FCHW) for video_FCHW in videos]).to("cpu", torch.float16)
        if latents_VFCHW.nbytes * len(self) <= self.config.memory_gib * 2**30:
            self._entries[number] = turn, latents_VFCHW
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{number}.safetensors"
        write_tensors(path, {"latents": latents_VFCHW}, {})
        self._entries[number] = turn, path

    def draw_videos(self, number: int, turn: int) -> tuple[Tensor, ...]:
        """The videos (F, C, H, W) in [0, 1] of an entry: the clip and, where there are twins, its twin."""
        drawn = self.draw(number, turn)
        if not self.twins:
            return (crop(drawn.video_FCHW, self.augment.shape, drawn.augmentation),)
        return drawn_pair(drawn, self.augment)

    def draw(self, number: int, turn: int) -> DrawnClip:
        """What an entry draws of its clip in this round."""
        clip, entry = divmod(number, self.config.per_clip)
        generator = seeded(self.seed, "clip", clip, entry, turn)
        return draw_clip(self.clips[clip], self.sampling, self.augment, generator)

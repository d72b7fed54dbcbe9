"""Clips without files, of a disc that wanders before a scene: the same way may be shown in many looks."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flash_pack.flash_modules.files.footage import Footage
from flash_pack.flash_modules.training.clips import Clip

FPS = 8.0
H, W, F = 40, 60, 24


@dataclass(frozen=True, eq=False)
class Shown:
    """Fulfils `Pictures`."""

    video_FCHW: Tensor

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.video_FCHW.numpy().tobytes()).hexdigest()

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        return self.video_FCHW[list(indices)]


def as_clip(video_FCHW: Tensor, name: str = "a.mp4", fps: float = FPS, action: str = "jump") -> Clip:
    frames, _, height, width = video_FCHW.shape
    footage = Footage(tuple(i / fps for i in range(frames)), frames / fps, (width, height), rotation=0)
    pictures = Shown(video_FCHW.contiguous())
    return Clip(path=Path(name), action=action, caption=action, footage=footage, pictures=pictures)


def drawn(way: int, look: int, num_frames: int = F, size: tuple[int, int] = (H, W)) -> Tensor:
    """The disc on its way `way`, RGB in [0, 1] (F, 3, H, W); scene and colours are those of `look`."""
    height, width = size
    colours = torch.Generator().manual_seed(1000 + look)
    scene_CHW = interpolate(torch.rand(1, 3, 5, 7, generator=colours), size, mode="bicubic")[0].clamp(0, 1)
    disc_C11 = torch.rand(3, 1, 1, generator=colours).round()
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    turns = 0.25 + torch.rand(4, generator=torch.Generator().manual_seed(way))
    starts = torch.rand(4, generator=torch.Generator().manual_seed(500 + way)) * 6.28
    pictures = []
    for f in range(num_frames):
        place = 0.5 + 0.22 * (torch.sin(turns * f + starts)[:2] + torch.sin(0.6 * turns * f + starts)[2:])
        near_HW = torch.sigmoid((0.16 - ((y - place[0]) ** 2 + (x - place[1]) ** 2).sqrt()) * 60)
        pictures.append(scene_CHW * (1 - near_HW) + disc_C11 * near_HW)
    return torch.stack(pictures)


def drawn_clip(way: int, look: int, name: str = "a.mp4", num_frames: int = F) -> Clip:
    return as_clip(drawn(way, look, num_frames), name)

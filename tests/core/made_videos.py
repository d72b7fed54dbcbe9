"""Small videos that differ in one known way: what moves, what it looks like, how steadily it is seen."""

import math

import torch
import torch.nn.functional as nnf
from torch import Tensor

F, H, W = 8, 64, 96

Path = tuple[tuple[float, float], ...]
RIGHT: Path = tuple((20 + 4.0 * f, 32.0) for f in range(F))
DOWN: Path = tuple((48.0, 12 + 4.0 * f) for f in range(F))
CIRCLE: Path = tuple(
    (48 + 16 * math.cos(2 * math.pi * f / F), 32 + 16 * math.sin(2 * math.pi * f / F)) for f in range(F)
)


def texture(seed: int, height: int = H, width: int = W) -> Tensor:
    """Soft coloured spots (H, W, 3) in [0, 1]."""
    draw = torch.Generator().manual_seed(seed)
    coarse_1CHW = torch.rand(1, 3, height // 4, width // 4, generator=draw)
    fine_1CHW = nnf.interpolate(coarse_1CHW, size=(height, width), mode="bicubic")
    return fine_1CHW[0].permute(1, 2, 0).clamp(0, 1)


def scene(path: Path = RIGHT, look: int = 0) -> Tensor:
    """A spotted disc of radius 10 that goes along the path (x, y) over a spotted ground at rest."""
    ground_HWC, skin_HWC = 0.3 * texture(look) + 0.1, 0.5 * texture(look + 100, 24, 24) + 0.5
    y_HW, x_HW = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    frames = []
    for x, y in path:
        own_HW2 = torch.stack([(x_HW - x) / 12, (y_HW - y) / 12], dim=-1)
        seen_CHW = nnf.grid_sample(
            skin_HWC.permute(2, 0, 1)[None], own_HW2[None], align_corners=False, padding_mode="border"
        )[0]
        alpha_HW1 = (10.5 - 12 * own_HW2.norm(dim=-1)).clamp(0, 1)[..., None]
        frames.append(alpha_HW1 * seen_CHW.permute(1, 2, 0) + (1 - alpha_HW1) * ground_HWC)
    return torch.stack(frames)


def still(video_FHWC: Tensor) -> Tensor:
    return video_FHWC[:1].expand_as(video_FHWC)


def shuffled(video_FHWC: Tensor) -> Tensor:
    return video_FHWC[[0, 5, 2, 7, 1, 6, 3, 4]]


def noisy(video_FHWC: Tensor, strength: float = 0.1) -> Tensor:
    noise_FHWC = torch.randn(video_FHWC.shape, generator=torch.Generator().manual_seed(1))
    return (video_FHWC + strength * noise_FHWC).clamp(0, 1)

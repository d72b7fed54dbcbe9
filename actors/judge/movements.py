"""Which action a video's movements are like, whatever its look and place: told by the joints alone."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from flash_modules.files.tensor_file import read_tensors, write_tensors

from ..world.actions import ACTIONS
from ..world.clips import clip_video, make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .reader import MIRRORED, WEIGHTS, Reader, actor_is_right, read_joints

FILE = WEIGHTS.with_name("movements.safetensors")
_EACH = 8
"""Known performances of each action."""
_NEAREST = 5
_SEED = 5 * 10**6


@dataclass(frozen=True)
class Movements:
    """Movements (K, 60) of true performances, by action."""

    known: dict[str, Tensor]

    def likeness(self, joints_FJ2: Tensor, height: float, action: str) -> float:
        """Share in [0, 1] of the five nearest performances that are of this action; by chance it is 1/12."""
        away_K = (torch.cat([*self.known.values()]) - movement(joints_FJ2, height)).norm(dim=1)
        names = [name for name, performances in self.known.items() for _ in performances]
        nearest = away_K.argsort()[:_NEAREST].tolist()
        return [names[i] for i in nearest].count(action) / _NEAREST


def movement(joints_FJ2: Tensor, height: float) -> Tensor:
    """How far each joint (pixels) goes about and how fast: 60 numbers, in standing heights.

    Deviations over the frames, and mean differences from frame to frame, of x and y. Left and right are one,
    as from the side they are hardly told apart; where the joints are does not count, so a still picture of
    whatever pose is all zeros.
    """
    scaled_FJ2 = joints_FJ2.float() / height
    parts = torch.stack([scaled_FJ2.std(dim=0, correction=0), scaled_FJ2.diff(dim=0).abs().mean(dim=0)])
    return ((parts + parts[:, MIRRORED]) / 2).flatten()


@torch.inference_mode()
def read_movements(reader: Reader) -> Movements:
    """Performances of all actions, as the reader sees them."""
    return Movements(
        {
            action: torch.stack([_performance(reader, action, i, 50 * n + i) for i in range(_EACH)])
            for n, action in enumerate(ACTIONS)
        }
    )


def _performance(reader: Reader, action: str, motion: int, look: int) -> Tensor:
    clip = make_clip(draw_motion(action, _SEED + motion), draw_look(_SEED + look))
    return movement(read_joints(reader, clip_video(clip), right_person=actor_is_right(clip)), clip.height)


def write_movements(movements: Movements, path: Path) -> None:
    """Write the performances as a file of tensors."""
    write_tensors(path, movements.known, {"script": "python -m actors reader"})


@cache
def load_movements(path: Path = FILE) -> Movements:
    """Performances from a file, as `write_movements` writes it."""
    return Movements(read_tensors(path)[0])

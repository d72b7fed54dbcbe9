"""A pool of rendered clips on disk: clip i is a function of (seed, i), so the pool can stop and grow."""

import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..world.actions import EXTRA_MOTIONS, SEEN_ACTIONS
from ..world.clips import make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .sizes import IMAGE_SIZE, LATENT_SIZE, NUM_FRAMES


@dataclass(frozen=True)
class PoolClip:
    """What of a clip is kept."""

    frames_FHW3: NDArray[np.uint8]
    figures_FHW: NDArray[np.uint8]
    """How much of each latent pixel people and things cover: 255 is all of it."""
    caption: str


ClipSource = Callable[[int, int], PoolClip]
"""``source(seed, index) -> clip``; a function of a module, for other processes."""

_MOTIONS = (*SEEN_ACTIONS, *EXTRA_MOTIONS, *("gesturing",) * 2)
"""Equally likely. Gestures teach poses that belong to no action, so they count three times."""

CHUNK = 50
"""Clips of a file."""


def actor_clip(seed: int, index: int, num_frames: int = NUM_FRAMES) -> PoolClip:
    """A clip of a seen action, or of an everyday motion, in a look that is not held out, from nearby."""
    draws = random.Random(f"{seed} clip {index}")
    motion = draw_motion(draws.choice(_MOTIONS), draws.getrandbits(31), close=True)
    look = draw_look(draws.getrandbits(31))
    clip = make_clip(motion, look, num_frames=num_frames, size=IMAGE_SIZE)
    return PoolClip(clip.frames_FHW3, covered(clip.masks_FHW > 0), clip.caption)


def covered(inside_FHW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How much of each latent pixel is inside, from 0 to 255."""
    size = inside_FHW.shape[1] // LATENT_SIZE
    shares = reduce(inside_FHW.astype(np.float32), "f (h y) (w x) -> f h w", "mean", y=size, x=size)
    return np.asarray((255 * shares).round(), np.uint8)


def make_pool(folder: Path, source: ClipSource, num_clips: int, seed: int, workers: int = 2) -> None:
    """Render the clips that the folder lacks, `CHUNK` to a file, in so many processes.

    Raises ValueError if the folder holds clips of another seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-num_clips // CHUNK))
    for path in map(partial(_path, folder), chunks):
        if path.is_file() and (found := _about(path)["seed"]) != seed:
            raise ValueError(f"{folder} holds clips of seed {found}: take --seed {found}, or another --out.")
    missing = [chunk for chunk in chunks if not _path(folder, chunk).is_file()]
    render = partial(_render, folder, source, seed)
    with tqdm(total=len(missing) * CHUNK, desc="pool", unit="clip") as bar:
        for _ in _run(render, missing, workers):
            bar.update(CHUNK)


def _run(render: Callable[[int], None], chunks: list[int], workers: int) -> Iterator[None]:
    if workers == 1:
        yield from map(render, chunks)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as processes:
        yield from processes.imap_unordered(render, chunks)


def _render(folder: Path, source: ClipSource, seed: int, chunk: int) -> None:
    clips = [source(seed, index) for index in range(chunk * CHUNK, (chunk + 1) * CHUNK)]
    path = _path(folder, chunk)
    about = {"seed": seed, "captions": [clip.caption for clip in clips]}
    path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    save_array(_figures(path), np.stack([clip.figures_FHW for clip in clips]))
    save_array(path, np.stack([clip.frames_FHW3 for clip in clips]))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file: the whole file, or none."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.save(file, array)
    os.replace(draft, path)


def _path(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:05d}.npy"


def _figures(path: Path) -> Path:
    return path.with_name(f"{path.stem}-figures.npy")


def _about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return about


class ClipPool:
    """The first clips of a pool; frames stay on disk until they are asked for."""

    def __init__(self, folder: Path, num_clips: int) -> None:
        self.paths = [_path(folder, chunk) for chunk in range(-(-num_clips // CHUNK))]
        missing = [path.name for path in self.paths if not path.is_file()]
        if missing:
            raise ValueError(f"{folder} lacks {', '.join(missing)}: run the stage `pool` first.")
        self.chunks_KFHW3 = [np.load(path, mmap_mode="r") for path in self.paths]
        self.captions = [text for path in self.paths for text in _about(path)["captions"]][:num_clips]

    def __len__(self) -> int:
        return len(self.captions)

    def frame(self, clip: int, frame: int) -> np.ndarray:
        """One frame (H, W, 3) as uint8."""
        frame_HW3: np.ndarray = self.chunks_KFHW3[clip // CHUNK][clip % CHUNK, frame]
        return frame_HW3

    @cached_property
    def frames_KFHW3(self) -> Tensor:
        """All frames as uint8, in memory."""
        return torch.from_numpy(np.concatenate(self.chunks_KFHW3)[: len(self)])

    @cached_property
    def figures_KFHW(self) -> Tensor:
        """How much of each latent pixel people and things cover, as uint8; 255 is all of it."""
        return torch.from_numpy(np.concatenate([np.load(_figures(path)) for path in self.paths])[: len(self)])

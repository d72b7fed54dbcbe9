"""A pool of rendered clips on disk: clip i is a function of (seed, i), so the pool can stop and grow."""

import json
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..world.actions import EXTRA_MOTIONS, SEEN_ACTIONS
from ..world.clips import make_clip
from ..world.looks import draw_look
from ..world.motion import draw_motion
from .models import IMAGE_SIZE, NUM_FRAMES

ClipSource = Callable[[int, int], tuple[np.ndarray, str]]
"""``source(seed, index) -> (frames_FHW3 uint8, caption)``; a function of a module, for other processes."""

CHUNK = 50
"""Clips of a file."""


def actor_clip(seed: int, index: int) -> tuple[np.ndarray, str]:
    """A clip of a seen action, or of an everyday motion, in a look that is not held out."""
    draws = random.Random(f"{seed} clip {index}")
    action = draws.choice((*SEEN_ACTIONS, *EXTRA_MOTIONS))
    motion, look = draw_motion(action, draws.getrandbits(31)), draw_look(draws.getrandbits(31))
    clip = make_clip(motion, look, num_frames=NUM_FRAMES, size=IMAGE_SIZE)
    return clip.frames_FHW3, clip.caption


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
    about = {"seed": seed, "captions": [caption for _, caption in clips]}
    path.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")
    save_array(path, np.stack([frames for frames, _ in clips]))


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file: the whole file, or none."""
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.save(file, array)
    os.replace(draft, path)


def _path(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk:05d}.npy"


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

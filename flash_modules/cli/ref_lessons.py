"""The clips of `train-ref-adapter`, encoded once into the run's folder; processes share the work."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..backends.diffusers.cogvideox import BaseFiles, load_vae
from ..backends.diffusers.cogvideox.train import encode_moments
from ..files.tensor_file import read_tensors, write_tensors
from ..files.whole import clear_drafts
from ..flash.training.needs import gib
from ..flexiact.training.ref_clips import (
    RefClipConfig,
    encode_clip,
    encoded_bytes,
    read_encoded_clip,
    write_encoded_clip,
)
from ..flexiact.training.ref_training import Lessons
from ..training.clips import Clip
from ..training.run_folder import RunFolder
from .processes import AcceleratedProcesses
from .transfer import prompt_encoder

_TEXTS = 256
"""That are held in memory; 1.8 MB each in bf16."""


class EncodedFiles:
    """Where the clips and captions of a run lie once they are encoded."""

    def __init__(self, run: Path, clips: Sequence[Clip]) -> None:
        self.folder = run / "encoded"
        self.captions = list(dict.fromkeys([*(clip.caption for clip in clips), ""]))
        self._numbers = {caption: number for number, caption in enumerate(self.captions)}

    def clip(self, number: int) -> Path:
        return self.folder / f"clip-{number:06d}.safetensors"

    def text(self, caption: str) -> Path:
        return self.folder / f"text-{self._numbers[caption]:06d}.safetensors"


@dataclass(frozen=True)
class DiskNeeds:
    """What the disk of a run's folder must still take, and what is free on it, in bytes."""

    folder: Path
    needed: int
    free: int

    @property
    def said(self) -> str:
        return f"What is encoded takes {gib(self.needed)} of the disk, and {gib(self.free)} are free on it."

    def check(self) -> None:
        """Raise ValueError if it does not fit."""
        if self.needed > self.free:
            raise ValueError(
                f"Encoding takes {gib(self.needed)} of the disk, and {gib(self.free)} are free for "
                f"{self.folder}: make room, give --runs on another disk, or fewer clips, --windows or "
                "--pictures."
            )


def disk_needs(
    run: Path, files: BaseFiles, clips: Sequence[Clip], config: RefClipConfig, dtype: torch.dtype
) -> DiskNeeds:
    """What the run's clips and captions take that are not encoded yet."""
    places = EncodedFiles(run, clips)
    missing_clips = sum(not places.clip(number).is_file() for number in range(len(clips)))
    missing_texts = sum(not places.text(caption).is_file() for caption in places.captions)
    text_bytes = files.max_text * files.text_width * dtype.itemsize
    folder = next(place for place in (places.folder, *places.folder.parents) if place.is_dir())
    return DiskNeeds(
        folder=places.folder,
        needed=missing_clips * encoded_bytes(config, files.shape.latents) + missing_texts * text_bytes,
        free=shutil.disk_usage(folder).free,
    )


def encoded_lessons(
    run: RunFolder,
    processes: AcceleratedProcesses,
    files: BaseFiles,
    clips: Sequence[Clip],
    config: RefClipConfig,
    *,
    dtype: torch.dtype,
    seed: int,
) -> Lessons:
    """The run's clips; what is not encoded yet is encoded now, and text encoder and VAE go again."""
    places = EncodedFiles(run.path, clips)
    if processes.is_first:
        places.folder.mkdir(exist_ok=True)
        clear_drafts(places.folder)
    processes.any(False)
    mine = slice(processes.index, None, processes.count)
    _encode_texts(places, files, places.captions[mine], processes, dtype)
    _encode_clips(places, files, list(enumerate(clips))[mine], config, processes, dtype=dtype, seed=seed)
    processes.any(False)

    @lru_cache(_TEXTS)
    def text_embeds(caption: str) -> Tensor:
        return read_tensors(places.text(caption))[0]["text"]

    return Lessons(
        clips=clips,
        encoded=lambda number: read_encoded_clip(places.clip(number)),
        text_embeds=text_embeds,
    )


def _encode_texts(
    places: EncodedFiles,
    files: BaseFiles,
    captions: Sequence[str],
    processes: AcceleratedProcesses,
    dtype: torch.dtype,
) -> None:
    missing = [caption for caption in captions if not places.text(caption).is_file()]
    if not missing:
        return
    encode = prompt_encoder(files, processes.device, dtype)
    for caption in tqdm(missing, desc="Encoding captions", unit="text", disable=not processes.is_first):
        write_tensors(places.text(caption), {"text": encode(caption).cpu()}, {})


def _encode_clips(
    places: EncodedFiles,
    files: BaseFiles,
    clips: Sequence[tuple[int, Clip]],
    config: RefClipConfig,
    processes: AcceleratedProcesses,
    *,
    dtype: torch.dtype,
    seed: int,
) -> None:
    missing = [(number, clip) for number, clip in clips if not places.clip(number).is_file()]
    if not missing:
        return
    encode = partial(encode_moments, load_vae(files, dtype).to(processes.device))
    for number, clip in tqdm(missing, desc="Encoding clips", unit="clip", disable=not processes.is_first):
        write_encoded_clip(places.clip(number), encode_clip(clip, config, encode, seed, number))

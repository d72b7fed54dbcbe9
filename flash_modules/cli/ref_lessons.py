"""The clips of `train-ref-adapter`, encoded once into the run's folder; processes share the work."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..backends.diffusers.cogvideox import BaseFiles, load_vae
from ..backends.diffusers.cogvideox.train import encode_moments
from ..files.tensor_file import read_tensors, write_tensors
from ..files.whole import clear_drafts
from ..flexiact.training.ref_clips import RefClipConfig, encode_clip, read_encoded_clip, write_encoded_clip
from ..flexiact.training.ref_training import Lessons
from ..training.clips import Clip
from ..training.run_folder import RunFolder
from .processes import AcceleratedProcesses
from .transfer import prompt_encoder

_TEXTS = 256
"""That are held in memory; 1.8 MB each in bf16."""


class EncodedFiles:
    """Where the clips and captions of a run lie once they are encoded."""

    def __init__(self, run: RunFolder, clips: Sequence[Clip]) -> None:
        self.folder = run.path / "encoded"
        self.captions = list(dict.fromkeys([*(clip.caption for clip in clips), ""]))
        self._numbers = {caption: number for number, caption in enumerate(self.captions)}

    def clip(self, number: int) -> Path:
        return self.folder / f"clip-{number:06d}.safetensors"

    def text(self, caption: str) -> Path:
        return self.folder / f"text-{self._numbers[caption]:06d}.safetensors"


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
    places = EncodedFiles(run, clips)
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

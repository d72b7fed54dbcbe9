"""The last part of `make bench-gpu`: the small base is trained in what is left of the time, and brought back.

Its files come as one archive in pieces: `cat base.tar.* | tar x`.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import torch

from actors.base.pretrain import STAGES, Pretraining
from actors.base.sizes import IMAGE_SIZE, NUM_FRAMES
from actors.base.training import Limit

from .gpu_run import Record, Run

SHARES = {"vae": 0.15, "pictures": 0.05, "pairs": 0.15, "clips": 0.4}
"""Of the time, for the stages that learn; as the shipped base was trained."""
RENDERING = 0.15
"""Of the time; encoding and writing take the rest."""
CLIPS_A_SECOND = 15
"""That a core renders."""
PIECE = 15 * 2**20
"""Bytes, as files that leave the machine may have."""


def records(run: Run) -> Iterator[Record]:
    """Train all stages, write the pieces, and tell what a step of each took."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = os.cpu_count() or 1
    base = Pretraining(
        out=run.folder / "base",
        limits={
            stage: Limit(seconds=share * run.seconds, steps=1 if run.dry else None)
            for stage, share in SHARES.items()
        },
        num_clips=8 if run.dry else int(RENDERING * run.seconds * CLIPS_A_SECOND * cores),
        seed=0,
        workers=cores,
        device=device,
        batch=16 if device.type == "cuda" else 1,
    )
    for stage in STAGES.values():
        stage(base)
    write_pieces(base.out / "export", run.folder)
    told = json.loads((base.out / "export" / "training.json").read_text(encoding="utf-8"))["stages"]
    for name, stage in told.items():
        yield {
            "row": f"{name}: each of {stage['steps']} steps",
            "dtype": "bfloat16" if device.type == "cuda" else "float32",
            "video": f"{NUM_FRAMES} x {IMAGE_SIZE}x{IMAGE_SIZE}",
            "seconds": 60 * stage["minutes"] / stage["steps"],
        }


def write_pieces(folder: Path, target: Path) -> None:
    """Write an archive of a folder as target/base.tar.0, base.tar.1, ..."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, arcname="base")
    whole = archive.getbuffer()
    for number, start in enumerate(range(0, len(whole), PIECE)):
        (target / f"base.tar.{number}").write_bytes(whole[start : start + PIECE])

"""All judges whose weights are there, and sentences for those that are missing."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from . import find
from .clip import ClipJudge
from .find import JudgeFile, find_judge, missing
from .i3d import I3dJudge
from .videomae import VideoMaeJudge

if importlib.util.find_spec("torchvision"):
    from .raft import RaftJudge
else:
    RaftJudge = None  # type: ignore[assignment, misc]

Judge = TypeVar("Judge")
_NO_TORCHVISION = (
    "RAFT needs torchvision, and Cosine Flow is left out: install it with pip install '.[judges]'."
)


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What there is."""

    clip: ClipJudge | None = None
    videomae: VideoMaeJudge | None = None
    i3d_rgb: I3dJudge | None = None
    i3d_flow: I3dJudge | None = None
    raft: "RaftJudge | None" = None
    files: tuple[str, ...] = ()
    """Which judge was read from what, for the report."""
    notes: tuple[str, ...] = ()
    """A sentence for each that is missing."""


def load_judges(folder: Path | None, device: torch.device) -> Judges:
    """Every judge whose weights lie in the folder or in the usual caches.

    Raises ValueError for a folder that is none, and for weights that are damaged.
    """
    if folder and not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}: give the one with the judges' weights, or leave it out."
        )
    files: list[str] = []
    notes: list[str] = []

    def load(judge: JudgeFile, make: Callable[[Path], Judge]) -> Judge | None:
        path = find_judge(judge, folder)
        if path is None:
            notes.append(missing(judge))
            return None
        made = make(path)
        files.append(f"{getattr(made, 'name', judge.title)}: {path.name}")
        return made

    clip = load(find.CLIP, lambda path: ClipJudge(path, device))
    if clip and clip.name != find.CLIP.title:
        notes.append(f"The scores by CLIP come from {clip.name}, and not from the paper's {find.CLIP.title}.")
    videomae = load(find.VIDEOMAE, lambda path: VideoMaeJudge(path, device))
    i3d_rgb = load(find.I3D_RGB, lambda path: I3dJudge(path, "rgb", device))
    i3d_flow = load(find.I3D_FLOW, lambda path: I3dJudge(path, "flow", device))
    if RaftJudge is None:
        notes.append(_NO_TORCHVISION)
        raft = None
    else:
        raft = load(find.RAFT, lambda path: RaftJudge(path, device))
    return Judges(
        clip=clip,
        videomae=videomae,
        i3d_rgb=i3d_rgb,
        i3d_flow=i3d_flow,
        raft=raft,
        files=tuple(files),
        notes=tuple(notes),
    )

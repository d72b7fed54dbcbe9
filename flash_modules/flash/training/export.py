"""A trained action as a file: what was learned, and how, without a path of the user's machine."""

import json
from collections.abc import Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch

from ...animatediff.motion_file import MotionWeights
from ...animatediff.noise_schedule import BETA_END, BETA_START, MODELSPEC, NUM_TIMESTEPS, Prediction
from ...files.tensor_file import Tensors
from ..action_file import Action, Source, write_action
from ..sampling import SamplerConfig
from .action_training import Learned
from .card import action_card
from .method_settings import method_settings


def write_trained_action(
    path: Path,
    learned: Learned,
    motion: MotionWeights,
    *,
    base: Source,
    prediction: Prediction,
    standalone: bool,
    header: Mapping[str, str] | None = None,
) -> None:
    """Write what was learned on AnimateDiff's motion module as an action file, whole or not at all.

    `header` has further entries of the file's header.
    """
    header = {**action_header(learned, prediction), **(header or {})}
    action = trained_action(path.stem, learned, motion, base=base, header=header, standalone=standalone)
    write_action(path, action, motion.config)


def trained_action(
    name: str,
    learned: Learned,
    motion: MotionWeights,
    *,
    base: Source,
    header: Mapping[str, str],
    standalone: bool,
) -> Action:
    """What was learned, as an action.

    Motion weights are kept whole in fp16, and all of the motion module's if `standalone`; keys and values as
    differences in fp32, because fp16 has no room for small ones.
    """
    weights = {key: learned.weights[key] for key in learned.weights if key in motion.tensors}
    kept: Tensors = {**motion.tensors, **weights} if standalone else weights
    return Action(
        name=name,
        kind="standalone" if standalone else "compact",
        motion={key: tensor.detach().to("cpu", torch.float16) for key, tensor in kept.items()},
        kv_diffs={
            key: tensor.detach().float().cpu() - learned.before[key].float().cpu()
            for key, tensor in learned.weights.items()
            if key not in motion.tensors
        },
        base=base,
        motion_module=Source(name=motion.name, sha256=motion.sha256, version=motion.version),
        frames=learned.config.sampling.num_frames,
        prompts=learned.prompts,
        header=header,
    )


def action_header(learned: Learned, prediction: Prediction) -> dict[str, str]:
    """Further entries of the file's header: the standard's (modelspec), and how the action was trained."""
    method = learned.config.method
    settings = {
        "trainable": method.trainable,
        "cfa": "current+first",
        "noise_schedule": {"linear": [BETA_START, BETA_END, NUM_TIMESTEPS]},
        "timestep": {"cosine": method.timesteps.alpha},
        "inference": {"steps": SamplerConfig.steps, "cfg": SamplerConfig.cfg, "adain": 1.0},
    }
    return {
        **learned_header(learned),
        "modelspec.prediction_type": MODELSPEC[prediction],
        **flash_entries(settings),
    }


def learned_header(learned: Learned) -> dict[str, str]:
    """Entries of any file with what was learned, on whatever base: how, from what, limits and use."""
    config = learned.config
    method = config.method
    height, width = method.augment.shape
    told = method_settings(method)
    settings = {
        "sampling": {
            **({"stride": config.sampling.stride} if config.sampling.fps is None else {}),
            "fps": round(learned.fps, 3),
        },
        "align": {
            **{name: told[name] for name in ("twins", "shared_noise") if name in told},
            **told["alignment"],
        },
        "augment": told["augment"],
        "steps": learned.steps,
        "lr": config.loop.learning_rate,
        "seed": config.seed,
        "data": {
            "n_clips": len(learned.clip_hashes),
            "sha256": learned.clip_hashes,
            **({"twins_sha256": learned.twin_hashes} if learned.twin_hashes else {}),
        },
        "code_version": code_version(),
    }
    return {
        **({"flash.started_from": json.dumps(vars(config.start))} if config.start else {}),
        **action_card(),
        "modelspec.date": date.today().isoformat(),
        "modelspec.resolution": f"{width}x{height}",
        **flash_entries(settings),
    }


def flash_entries(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as entries of a header, in JSON."""
    return {f"flash.{key}": json.dumps(value) for key, value in settings.items()}


def code_version() -> str:
    """The version of this code, as a file's header tells it."""
    try:
        return installed_version("flash-animation")
    except PackageNotFoundError:  # run from a checkout
        return "unreleased"

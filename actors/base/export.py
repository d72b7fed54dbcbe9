"""The trained small base as files that the product reads."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flash_modules.animatediff.motion_file import read_motion
from flash_modules.animatediff.motion_layout import POSITIONS
from flash_modules.animatediff.motion_module import TemporalAttention
from flash_modules.backends.diffusers.sd15 import find_base, load_base
from flash_modules.files.tensor_file import Tensors, write_tensors

from .diffusion import PREDICTION, read_text_encoder, read_unet
from .latents import Dataset
from .models import new_motion
from .schedule import ddim_scheduler
from .training import averaged_weights, where

MAX_MEGABYTES = 30.0


def export(out: Path, data: Dataset, vae_folder: Path, stages: Iterable[str], about: dict[str, Any]) -> Path:
    """Write out/export: a folder in diffusers' layout, motion.safetensors and training.json, all in fp16.

    Raises ValueError if it is larger than 30 MB, or does not load again.
    """
    draft = out / "export.draft"
    shutil.rmtree(draft, ignore_errors=True)
    read_unet(out / "clips").half().save_pretrained(draft / "unet")
    read_text_encoder(out, data).cpu().half().save_pretrained(draft / "text_encoder")
    shutil.copytree(vae_folder, draft / "vae")
    shutil.copytree(out / "tokenizer", draft / "tokenizer")
    ddim_scheduler(PREDICTION).save_pretrained(draft / "scheduler")
    write_tensors(draft / "motion.safetensors", _motion_tensors(out), {})
    ends = {stage: where(out / stage) for stage in stages}
    training = {**about, **_machine(), "stages": ends, "clips": len(data.captions)}
    (draft / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
    _check_size(draft)
    load_base(find_base(draft))
    read_motion(draft / "motion.safetensors")
    folder = out / "export"
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    return folder


def _motion_tensors(out: Path) -> Tensors:
    """AnimateDiff's names, with the stored positions by which the number of frames is known."""
    tensors = averaged_weights(out / "clips", "motion")
    for name, module in new_motion(0).named_modules():
        if isinstance(module, TemporalAttention):
            tensors[name + POSITIONS] = module.positions_FC[None]
    return {name: tensor.half() for name, tensor in tensors.items()}


def _check_size(folder: Path) -> None:
    """Show the size of every file; raise ValueError if all together are too large to ship."""
    sizes = {path.relative_to(folder): path.stat().st_size for path in sorted(folder.rglob("*.*"))}
    total = sum(sizes.values()) / 1e6
    for path, size in sizes.items():
        tqdm.write(f"{size / 1e6:8.3f} MB  {path}")
    tqdm.write(f"{total:8.3f} MB  in all")
    if total > MAX_MEGABYTES:
        raise ValueError(
            f"The small base has {total:.1f} MB, and at most {MAX_MEGABYTES:.0f} MB go into the repository: "
            "make the widths in actors/base/models.py smaller."
        )


def _machine() -> dict[str, Any]:
    """What the training ran on, and from which commit."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].split(":")[1].strip() if models else cpu
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"],
        cwd=here, capture_output=True, text=True, check=False,
    )  # fmt: skip
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return {
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{gpu}{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }

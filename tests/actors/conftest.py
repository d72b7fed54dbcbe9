"""Lets tests import `actors`, and the core as `actors` does, from the repository's root.

The root comes last on sys.path: our `nodes/` must never hide ComfyUI's `nodes.py`.
"""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

sys.path.append(str(Path(__file__).resolve().parents[2]))

from actors.__main__ import main
from actors.base import models, pool, vae
from actors.base.pretrain import MINUTES, STAGES, Pretraining
from actors.base.training import Limit
from flash_modules.cli import main as product

torch.set_num_threads(1)  # models this small only wait for a second thread


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Tests draw the same numbers each time."""
    torch.manual_seed(0)


def tiny_vae(seed: int) -> AutoencoderKL:
    """The small base's VAE with a quarter of its channels."""
    config = models.new_vae(seed).config
    return AutoencoderKL.from_config(config, block_out_channels=(8, 16, 16))


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base after a step of each stage, with fewer channels than it has."""
    folder = tmp_path_factory.mktemp("base")
    limits = dict.fromkeys(MINUTES, Limit(steps=1))
    made = Pretraining(out=folder, limits=limits, num_clips=2, seed=0, workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_WIDTHS", (32, 32, 32))
        patch.setattr(vae, "new_vae", tiny_vae)
        patch.setattr(pool, "CHUNK", 2)
        for stage in STAGES.values():
            stage(made)
    return folder / "export"


@pytest.fixture(scope="session")
def tiny_details(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detail decoder for its VAE, after a step."""
    folder = tmp_path_factory.mktemp("details")
    assert main(["clips", "--action", "arm wave", "--num", "1", "--out", str(folder / "clips")]) == 0
    words = ["train-decoder", "--vae", str(tiny_base), "--clips", str(folder / "clips"), "--frames", "8"]
    words += ["--sampling", "whole", "--size", "64", "--width", "4", "--steps", "1"]
    assert product([*words, "--runs", str(folder), "--out", "run"]) == 0
    return folder / "run" / "run.safetensors"

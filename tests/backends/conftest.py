"""Files of a small base model, and no way into the network."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.torch import save_file

from flash_pack.tests.backends.small_models import (
    save_tokenizer,
    small_motion,
    small_text_encoder,
    small_unet,
    small_vae,
    write_gif,
)

torch.set_num_threads(1)  # models this small only wait for a second thread


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("small") / "tokenizer")


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in diffusers' layout."""
    folder = tmp_path_factory.mktemp("small-base")
    small_unet().save_pretrained(folder / "unet")
    small_vae().save_pretrained(folder / "vae")
    small_text_encoder().save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    return folder


@pytest.fixture(scope="session")
def training_files(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with one layer a block, a motion module, two clips and a picture."""
    folder = tmp_path_factory.mktemp("files")
    small_unet(layers=1).save_pretrained(folder / "base" / "unet")
    small_vae(layers=1).save_pretrained(folder / "base" / "vae")
    for part in ("text_encoder", "tokenizer", "scheduler"):
        (folder / "base" / part).symlink_to(base_folder / part)
    save_file(small_motion(layers=1).tensors, folder / "motion.safetensors")
    write_gif(folder / "run_fast" / "a.gif", "orange")
    write_gif(folder / "run_fast" / "b.gif", "green")
    (folder / "run_fast" / "b.txt").write_text("a girl runs")
    Image.effect_noise((70, 100), 90).convert("RGB").save(folder / "picture.png")
    return folder


def _write_clip(path: Path, angle: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.linear_gradient("L").rotate(angle + 12 * i).resize((64, 64)) for i in range(6)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


@pytest.fixture(scope="session")
def turning_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "turn"
    for i in range(2):
        _write_clip(folder / f"{i}.gif", 90 * i)
    return folder

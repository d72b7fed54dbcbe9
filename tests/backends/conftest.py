"""Files of a small base model, and no way into the network."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import pytest
import torch
from diffusers import DDIMScheduler

from flash_pack.tests.backends.small_models import save_tokenizer, small_text_encoder, small_unet, small_vae

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

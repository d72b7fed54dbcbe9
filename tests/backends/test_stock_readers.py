"""Other programs' own readers on a standalone action: diffusers' MotionAdapter, offline."""

import logging
import re
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter
from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.animatediff.motion_layout import animatediff_names
from flash_pack.tests.backends.command_line import cheap_counting
from flash_pack.tests.backends.small_models import SD15_WIDTHS, small_motion, small_unet


@pytest.fixture(scope="module")
def trained(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A standalone action with all places that Stable Diffusion 1.5 has, after a step of training."""
    folder = tmp_path_factory.mktemp("trained")
    base = folder / "base"
    small_unet(widths=SD15_WIDTHS).save_pretrained(base / "unet")
    for part in ("vae", "text_encoder", "tokenizer"):
        (base / part).symlink_to(base_folder / part)
    save_file(small_motion(widths=SD15_WIDTHS).tensors, folder / "v3_motion.safetensors")
    frames = [Image.linear_gradient("L").rotate(15 * i).resize((64, 64)) for i in range(4)]
    (folder / "clips").mkdir()
    frames[0].save(folder / "clips" / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    words = [
        *("--base", base, "--motion", folder / "v3_motion.safetensors", "--clips", folder / "clips"),
        *("--runs", folder, "--out", "jump", "--steps", 1, "--pool", 1, "--lr", 1e-2),
        *("--frames", 2, "--size", 64, "--device", "cpu"),
    ]
    with cheap_counting():
        assert cli.main(["train", "--standalone", *map(str, words)]) == 0
    return folder / "jump" / "jump.safetensors"


@pytest.fixture(scope="module")
def config_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `config` names: a folder with config.json, here with the small widths."""
    folder = tmp_path_factory.mktemp("config")
    MotionAdapter(block_out_channels=SD15_WIDTHS, use_motion_mid_block=False).save_config(folder)
    return folder


def motion_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if ".motion_modules." in name}


def test_diffusers_reads_every_motion_tensor_with_its_value(trained: Path, config_folder: Path) -> None:
    stored = motion_part(load_file(trained))
    assert len(stored) == 560
    adapter = MotionAdapter.from_single_file(str(trained), config=str(config_folder), local_files_only=True)
    found = animatediff_names(adapter.state_dict(), "the adapter")
    assert found.keys() == stored.keys()
    for name, tensor in stored.items():
        assert torch.equal(found[name].half(), tensor), name


def test_motion_that_diffusers_reads_is_the_trained_one(trained: Path, config_folder: Path) -> None:
    adapter = MotionAdapter.from_single_file(str(trained), config=str(config_folder), local_files_only=True)
    found = animatediff_names(adapter.state_dict(), "the adapter")
    before = small_motion(widths=SD15_WIDTHS).tensors
    changed = {name for name in before if not torch.equal(found[name].half(), before[name].half())}
    assert changed == {name for name in before if ".attention_blocks." in name}


def test_diffusers_only_warns_about_keys_and_values(
    trained: Path, config_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        MotionAdapter.from_single_file(str(trained), config=str(config_folder), local_files_only=True)
    (warning,) = {line for line in caplog.messages if "were not used" in line}
    unused = set(re.findall(r"[\w.]+\.diff", warning))
    stored = load_file(trained)
    assert unused == stored.keys() - motion_part(stored).keys()
    assert len(unused) == 64


def test_diffusers_takes_it_for_version_3_without_a_config(trained: Path) -> None:
    assert infer_diffusers_model_type(load_file(trained)) == "animatediff_v3"

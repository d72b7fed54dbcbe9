"""The pool of latents, encoded by diffusers' VAE."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.backends.diffusers.sd15 import find_base, load_base
from flash_pack.flash_modules.backends.diffusers.sd15.train.action import action_training
from flash_pack.flash_modules.flash.augment import AugmentConfig
from flash_pack.flash_modules.flash.training.action_training import ActionTrainingConfig
from flash_pack.flash_modules.flash.training.latent_pool import LatentPool, PoolConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.sampling import SamplingConfig


@pytest.fixture
def make_pool(training_files: Path, tmp_path: Path) -> Callable[..., LatentPool]:
    def make(name: str = "pool", **changes: object) -> LatentPool:
        config = ActionTrainingConfig(
            sampling=SamplingConfig(num_frames=3),
            pool=PoolConfig(**{"per_clip": 4, "renew_micro_batches": 5, **changes}),
            method=MethodConfig(augment=AugmentConfig(size=16)),
        )
        training = action_training(
            load_base(find_base(training_files / "base")),
            "small",
            read_motion(training_files / "motion.safetensors"),
            find_clips([training_files / "run_fast"]).used,
            config,
            torch.device("cpu"),
        )
        return training.pool(tmp_path / name)

    return make


def test_a_pool_is_renewed_in_turns_and_is_the_same_when_made_again(make_pool) -> None:
    pool = make_pool()
    turns = [[pool.round_at(number, part) for number in range(8)] for part in (0, 4, 5, 10, 40, 45)]
    assert turns == [
        [0] * 8,
        [0] * 8,
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1] * 8,
        [2, 1, 1, 1, 1, 1, 1, 1],
    ]


def test_latents_on_disk_are_those_in_memory(make_pool, tmp_path: Path) -> None:
    in_memory, on_disk = make_pool("memory"), make_pool("disk", memory_gib=0.0)
    for part in (0, 1, 7):
        assert torch.equal(in_memory.entry(1, part), on_disk.entry(1, part))
    assert list((tmp_path / "disk").glob("*.safetensors"))
    assert not (tmp_path / "memory").exists()

"""`train-transfer` killed at any moment, and continued: the same action, bit for bit."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flash_pack.flash_modules.cli import train_transfer as command
from flash_pack.flash_modules.flexiact.training.needs import Needs
from flash_pack.flash_modules.flexiact.training.token_training import TokenTraining
from flash_pack.flash_modules.training.run_folder import checkpoint_steps
from flash_pack.tests.backends.command_line import run_command
from flash_pack.tests.backends.small_cogvideox import PROMPT, save_base

STEPS = 10
MOMENTS = (0, 1, 2, 3, 4, 6, 9, 12, 16, 21, 27, 30)
"""Changes of names, removals and micro-batches before a sitting is killed; the next goes on from there."""
fork = multiprocessing.get_context("fork")


def _learn(folder: Path, runs: Path) -> int:
    few = Needs(flops=10**12, device_bytes=2**20, waiting_bytes=2**20)  # counting takes seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "step_needs", lambda *_: few)
        return run_command(
            "train-transfer",
            {
                "base": folder / "base",
                "clip": folder / "turn.gif",
                "prompt": PROMPT,
                "tokens": 5,
                "steps": STEPS,
                "save-steps": 1,
                "device": "cpu",
                "runs": runs,
                "out": "turn",
            },
        )


def _learn_until_the_kill(folder: Path, runs: Path, moment: int) -> None:
    """Learn in a process that ends before its so many-th change or micro-batch."""
    torch.set_num_threads(1)
    left = [moment]

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: object, **kwargs: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return function(*args, **kwargs)

        return call

    for module, name in ((os, "replace"), (shutil, "rmtree"), (TokenTraining, "loss")):
        setattr(module, name, dying(getattr(module, name)))
    _learn(folder, runs)


def test_a_run_that_was_killed_again_and_again_is_one_that_never_was(tmp_path: Path) -> None:
    save_base(tmp_path / "base")
    frames = [Image.linear_gradient("L").rotate(9 * i).resize((120, 90)) for i in range(12)]
    frames[0].save(tmp_path / "turn.gif", save_all=True, append_images=frames[1:], duration=100)
    assert _learn(tmp_path, tmp_path / "whole") == 0  # first: what torch imports late is then here
    reached = []
    for moment in MOMENTS:
        child = fork.Process(target=_learn_until_the_kill, args=(tmp_path, tmp_path / "cut", moment))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, moment
        run = tmp_path / "cut" / "turn"
        reached.append(max(checkpoint_steps(run), default=0) if run.is_dir() else 0)
    assert reached == sorted(reached)
    assert 3 <= reached[-1] < STEPS
    assert _learn(tmp_path, tmp_path / "cut") == 0
    whole, cut = (load_file(tmp_path / name / "turn" / "turn.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(tokens, cut[name]) for name, tokens in whole.items())
    tables = [(tmp_path / name / "turn" / "loss.csv").read_text().splitlines() for name in ("whole", "cut")]
    losses = [[(row.split(",")[0], row.split(",")[2]) for row in table] for table in tables]
    assert losses[0] == losses[1]
    assert not [*(tmp_path / "cut").rglob(".flash-*"), *(tmp_path / "cut").rglob("*.new")]

"""True videos that the base draws again, by an untrained one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from actors import redrawn
from actors.__main__ import main
from actors.small_base import SmallBase, load_small_base


def test_a_true_video_is_read_best_and_noise_of_an_untrained_base_worst(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(redrawn, "HELD_OUT_ACTIONS", ("balance beam jump",))
    monkeypatch.setattr(redrawn, "NUM_TRUTHS", 2)
    monkeypatch.setattr(redrawn, "_TIMESTEPS", (101, 701))
    assert main(["redrawn", "--base", str(tiny_base), "--pictures", "1"]) == 0
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head == "|  | still | floor | true | VAE | from 101 | from 701 |"
    assert head.count("|") == rule.count("|") == row.count("|")
    name, _, _, true, _, little, much = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "balance beam jump"
    true_error, little_error, much_error = (float(cell.split(" ")[0]) for cell in (true, little, much))
    assert true_error < little_error
    assert true_error < much_error
    assert true.endswith("(1.00)")
    assert all(float(cell.split(" ")[2]) > 3 for cell in (little, much))


def test_the_distance_is_that_of_the_latents_in_noise(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(redrawn, "HELD_OUT_ACTIONS", ("arm wave",))
    monkeypatch.setattr(redrawn, "NUM_TRUTHS", 2)
    noise_to_signal = DDIMScheduler(beta_start=0.00085, beta_end=0.012).alphas_cumprod.pow(-1) - 1

    def one_off(base: SmallBase, latents_FCHW: Tensor, *args: Any, timestep: int, **rest: Any) -> Tensor:
        drawn_FCHW = latents_FCHW.clone()
        drawn_FCHW[1:, 0, 0, 0] += 4 * noise_to_signal[timestep].sqrt()
        return drawn_FCHW

    monkeypatch.setattr(SmallBase, "redraw", one_off)
    assert main(["redrawn", "--base", str(tiny_base), "--pictures", "1"]) == 0
    assert capsys.readouterr().out.count(", 4.0 sd |") == 3


def test_a_timestep_between_those_of_the_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drawn again from the timesteps .*251.* not from 300\."):
        load_small_base().redraw(torch.zeros(2, 4, 16, 16), "", 0, 300)

"""True videos that the base draws again, by an untrained one."""

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from torch.distributions import Normal

from actors.__main__ import main
from actors.base.small_base import SmallBase, load_small_base
from actors.studies import redrawn


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


def test_what_the_noise_tells_is_the_log_likelihood_ratio_of_the_nearest_other_truth(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    alphas_cumprod = DDIMScheduler(beta_start=0.00085, beta_end=0.012).alphas_cumprod
    videos_NFCHW = torch.randn(3, 8, 4, 24, 24, generator=generator) * 0.1
    videos_NFCHW[0] *= 5  # the farther of two other truths
    encoded = iter(videos_NFCHW)
    monkeypatch.setattr(redrawn, "HELD_OUT_ACTIONS", ("arm wave",))
    monkeypatch.setattr(redrawn, "NUM_TRUTHS", 2)
    monkeypatch.setattr(redrawn, "encode_picture", lambda *_: next(encoded))
    monkeypatch.setattr(SmallBase, "redraw", lambda base, true_FCHW, *_, **__: true_FCHW)
    assert main(["redrawn", "--base", str(tiny_base), "--pictures", "1"]) == 0
    cells = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")[-3:]
    _, other_FCHW, true_FCHW = videos_NFCHW[:, 1:]
    noise_FCHW = torch.randn(true_FCHW.shape, generator=generator)
    for timestep, cell in zip((251, 451, 651), cells, strict=True):
        alpha, sigma = alphas_cumprod[timestep].sqrt(), (1 - alphas_cumprod[timestep]).sqrt()
        noisy = alpha * true_FCHW + sigma * torch.stack([noise_FCHW, -noise_FCHW])
        log_p, other_log_p = (
            Normal(alpha * latents_FCHW, sigma).log_prob(noisy).sum((2, 3, 4)).mean()
            for latents_FCHW in (true_FCHW, other_FCHW)
        )
        assert float(cell.split(", ")[1]) == pytest.approx(float(log_p - other_log_p), abs=0.06)


def test_a_timestep_between_those_of_the_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match=r"drawn again from the timesteps .*251.* not from 300\."):
        load_small_base().redraw(torch.zeros(2, 4, 24, 24), "", 0, 300)

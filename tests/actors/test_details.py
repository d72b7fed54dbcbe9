"""Measures of detail decoders: which clips are held out, what counts as moving, what is kept."""

import math
import signal
from pathlib import Path

import pytest
import torch
from einops import rearrange

from actors.__main__ import main
from actors.base.models import new_vae
from actors.base.small_base import load_small_base
from actors.studies.details import Case, Quality, decode_with, measure, split_clips, table, write_actors
from actors.world.clips import clip_video, make_clip
from actors.world.looks import draw_look
from actors.world.motion import draw_motion
from flash_modules.backends.diffusers.sd15 import encode_picture, load_vae, make_detail_decoder
from flash_modules.backends.diffusers.sd15.train.detail import detail_training
from flash_modules.flash.decoder_file import read_detail_decoder
from flash_modules.flash.training.detail_training import DetailTraining, DetailTrainingConfig
from flash_modules.training.clips import find_clips
from flash_modules.training.sampling import SamplingConfig


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    new_vae(0).save_pretrained(folder)
    return folder


def command(vae: Path, out: Path, steps: int) -> list[str]:
    small = {"size": 32, "frames": 3, "num": 4, "seeds": 1, "steps": steps}
    words = [word for name, value in small.items() for word in (f"--{name}", str(value))]
    return ["details", "--out", str(out), "--vae", str(vae), *words]


def test_each_4th_clip_is_held_out_with_its_action_and_look(tmp_path: Path) -> None:
    taught, unseen = split_clips(write_actors(tmp_path / "clips", 32))
    assert (len(taught), len(unseen)) == (24, 8)
    assert not {clip.path for clip in taught} & {clip.path for clip in unseen}
    assert not {clip.caption.split(",")[0] for clip in taught} & {
        clip.caption.split(",")[0] for clip in unseen
    }


def test_few_clips_are_refused(tmp_path: Path) -> None:
    folder = write_actors(tmp_path / "clips", 3)
    with pytest.raises(ValueError, match="holds 3 clips: 4 or more are needed"):
        split_clips(folder)


def test_moving_pixels_are_those_that_differ_from_frame_0() -> None:
    true_FCHW = torch.zeros(3, 3, 16, 16)
    true_FCHW[1:, 0, :4] = 1.0  # a bar turns red
    made_FCHW = true_FCHW[1:].clone()
    made_FCHW[:, 0, :4] = 0.9
    latents = {"": true_FCHW[1:], ", distorted": made_FCHW}
    cases = [Case(first_1CHW=true_FCHW[:1], true_FCHW=true_FCHW[1:], latents=latents)]
    found = measure(lambda latents_FCHW, first_1CHW: latents_FCHW, cases)
    assert found[""].psnr == math.inf
    quality = found[", distorted"]
    assert quality.moving_psnr == pytest.approx(10 * torch.tensor(300.0).log10().item(), abs=1e-3)
    assert quality.psnr == pytest.approx(10 * torch.tensor(1200.0).log10().item(), abs=1e-3)
    assert 0.5 < quality.ssim < 1


def test_the_table_has_mean_and_spread() -> None:
    rows = {
        "both": [
            Quality(psnr=20.0, ssim=0.5, moving_psnr=10.0),
            Quality(psnr=22.0, ssim=0.6, moving_psnr=12.0),
        ],
        "VAE alone": [Quality(psnr=19.0, ssim=0.4, moving_psnr=9.0)],
    }
    lines = table(rows).splitlines()
    assert lines[2] == "| both | 21.00 ± 1.41 | 0.5500 ± 0.0707 | 11.00 ± 1.41 |"
    assert lines[3] == "| VAE alone | 19.00 | 0.4000 | 9.00 |"


def test_the_command_measures_all_branches_and_keeps_them(
    vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(vae, tmp_path, steps=1)
    assert main(words) == 0
    first = capsys.readouterr().out
    for row in ("copies of frame 0", "VAE alone", "both", "warping alone", "attention alone, distorted"):
        assert f"| {row} |" in first
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert len(kept) == 3
    assert main(words) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert main([*words, "--branches", "warping alone"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in first.splitlines() if line in shown and line.startswith("| warping alone")]
    assert not [line for line in shown if line.startswith(("| both", "| attention"))]


def test_a_decoder_from_a_file_is_measured_as_in_training(
    vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = write_actors(tmp_path / "clips", 1)
    config = DetailTrainingConfig(size=32, frames=1, width=4, sampling=SamplingConfig(num_frames=3))
    device = torch.device("cpu")
    training = detail_training(load_vae(vae), "vae", find_clips([clips]).used, config, device)
    for weight in training.decoder.parameters():
        weight.data = 0.05 * torch.randn_like(weight)
    training.write(tmp_path / "mine.safetensors", 0)
    first_1CHW, shown_1CHW = torch.rand(2, 1, 3, 32, 32)
    other = load_vae(vae)
    decoder = make_detail_decoder(other, read_detail_decoder(tmp_path / "mine.safetensors"))
    latents_1CHW = encode_picture(other, rearrange(shown_1CHW, "1 c h w -> 1 h w c"))
    found_1CHW = decode_with(other, decoder)(latents_1CHW, first_1CHW)
    with torch.no_grad():
        wanted_1CHW = training.rebuild(shown_1CHW, first_1CHW).clamp(0, 1)
        plain_1CHW = training.rebuild(shown_1CHW, first_1CHW, 0.0).clamp(0, 1)
    torch.testing.assert_close(found_1CHW, wanted_1CHW, rtol=0, atol=2e-3)  # files are in fp16
    assert (wanted_1CHW - plain_1CHW).abs().max() > 2e-2

    words = [
        *command(vae, tmp_path, steps=1),
        "--seeds",
        "0",
        "--decoder",
        str(tmp_path / "mine.safetensors"),
    ]
    assert main(words) == 0
    rows = capsys.readouterr().out
    assert all(f"| {row} |" in rows for row in ("VAE alone, distorted", "mine", "mine, distorted"))
    assert "both" not in rows


def test_frames_that_the_base_draws_again_are_measured_too(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["details", "--out", str(tmp_path), "--vae", str(tiny_base), "--num", "4", "--seeds", "0"]
    assert main(words) == 0
    assert "| VAE alone, redrawn by the base |" in capsys.readouterr().out


def test_a_base_draws_more_anew_where_more_noise_was() -> None:
    base = load_small_base()
    clip = make_clip(draw_motion("sprint run", 1, close=True), draw_look(1), size=base.size)
    true_FCHW = encode_picture(base.base.vae, clip_video(clip))
    errors = []
    for timestep in (51, 251):
        drawn_FCHW = base.redraw(true_FCHW, clip.caption, 0, timestep)
        assert torch.equal(drawn_FCHW[0], true_FCHW[0])
        errors.append((drawn_FCHW - true_FCHW)[1:].square().mean().item())
    copied = (true_FCHW[:1] - true_FCHW)[1:].square().mean().item()
    assert 0 < errors[0] < errors[1] < copied


def test_a_stopped_run_is_not_taken_for_a_finished_one(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(vae, tmp_path, steps=2)

    def rebuild(*args: object) -> object:  # Ctrl-C in the first step
        monkeypatch.undo()
        signal.raise_signal(signal.SIGINT)
        return true_rebuild(*args)

    true_rebuild = DetailTraining.rebuild
    monkeypatch.setattr(DetailTraining, "rebuild", rebuild)
    assert main(words) == 130
    assert "Stopped: the same command goes on" in capsys.readouterr().err
    assert not list(tmp_path.glob("*/result.json"))
    assert main(words) == 0
    assert len((tmp_path / "both-seed0-2" / "run" / "loss.csv").read_text().splitlines()) == 1 + 2

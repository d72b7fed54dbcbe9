"""What RefAdapter learns from: windows and pictures of clips, what a micro-batch draws of them, its loss."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_pack.flash_modules.flexiact.training.loss import LossConfig, token_loss, velocity_loss
from flash_pack.flash_modules.flexiact.training.ref_clips import (
    EncodedClip,
    RefClipConfig,
    drawn_pictures,
    drawn_windows,
    encode_clip,
    encoded_bytes,
    long_enough,
    read_encoded_clip,
    write_encoded_clip,
)
from flash_pack.flash_modules.flexiact.training.ref_training import (
    RefTrainingConfig,
    draw,
    new_low_ranks,
    ref_adapter_loop,
    run_settings,
)
from flash_pack.flash_modules.training.clips import Clips, Skipped
from flash_pack.tests.core.small_clips import clip, frames_shown, only_clip, write_video

W, F, C, H, P = 2, 4, 3, 5, 6
SMALL = RefClipConfig(frames=9, height=32, width=48, windows=3, pictures=5)


def _encoded(deviation: float = 0.0) -> EncodedClip:
    """Windows of 10, 11, ... and pictures of 20, 21, ..., each latent the same all over."""
    windows, pictures = (10.0 + torch.arange(W), 20.0 + torch.arange(P))
    mean_WFCHW = windows.view(W, 1, 1, 1, 1).expand(W, F, C, H, 7).contiguous()
    mean_P1CHW = pictures.view(P, 1, 1, 1, 1).expand(P, 1, C, H, 7).contiguous()
    return EncodedClip(
        mean_WFCHW,
        torch.full_like(mean_WFCHW, deviation),
        mean_P1CHW,
        torch.full_like(mean_P1CHW, 2 * deviation),
    )


def test_the_picture_takes_the_first_latents_place_and_is_seen_beside_it() -> None:
    """As in the released code, also where the picture is left out: the clean latent stays replaced."""
    pairs, left_out = set(), 0
    for number in range(300):
        drawn = draw(_encoded(), RefTrainingConfig(picture_drop=0.3), number)
        first, rest = drawn.clean_FCHW[0], drawn.clean_FCHW[1:]
        assert first.unique().numel() == rest.unique().numel() == 1
        pairs.add((float(rest[0, 0, 0, 0]), float(first[0, 0, 0])))
        assert not drawn.picture_FCHW[1:].any()
        left_out += not drawn.picture_FCHW[0].any()
        assert torch.equal(drawn.picture_FCHW[0], first) or not drawn.picture_FCHW.any()
    assert pairs == {(10.0 + w, 20.0 + p) for w in range(W) for p in range(P)}
    assert left_out / 300 == pytest.approx(0.3, abs=0.08)


def test_latents_are_drawn_anew_around_their_means_the_same_for_clean_and_beside() -> None:
    encoded = replace(_encoded(0.5), mean_WFCHW=_encoded().mean_WFCHW[:1])
    drawn = [draw(encoded, RefTrainingConfig(picture_drop=0), number) for number in range(400)]
    rest = torch.stack([one.clean_FCHW[1:] for one in drawn])
    assert float(rest.mean()) == pytest.approx(10, abs=0.02)
    assert float(rest.std()) == pytest.approx(0.5, abs=0.01)
    first = torch.stack([one.clean_FCHW[0] - one.clean_FCHW[0].mean().round() for one in drawn])
    assert float(first.std()) == pytest.approx(1, abs=0.03)
    assert all(torch.equal(one.clean_FCHW[0], one.picture_FCHW[0]) for one in drawn)


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    config = RefTrainingConfig()
    one, same, next_one, other = (
        draw(_encoded(0.5), settings, number)
        for settings, number in ((config, 7), (config, 7), (config, 8), (RefTrainingConfig(seed=1), 7))
    )
    for found, wanted in zip(vars(one).values(), vars(same).values(), strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted))
    assert not torch.equal(one.noise_FCHW, next_one.noise_FCHW)
    assert not torch.equal(one.noise_FCHW, other.noise_FCHW)


def test_chances_and_timesteps_are_those_that_are_said() -> None:
    drawn = [draw(_encoded(), RefTrainingConfig(text_drop=0.3), number) for number in range(600)]
    assert sum(not one.with_text for one in drawn) / 600 == pytest.approx(0.3, abs=0.06)
    assert min(one.timestep for one in drawn) < 10
    assert max(one.timestep for one in drawn) > 989
    assert sum(one.timestep for one in drawn) / 600 == pytest.approx(499.5, abs=40)


@pytest.mark.parametrize("timestep", [0, 500, 999])
def test_the_loss_is_the_released_codes_on_clean_latents(timestep: int) -> None:
    clean, noise, velocity = torch.randn(3, F, C, H, 7).double()
    alpha = float(alphas_cumprod()[timestep])
    noisy = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise
    found = math.sqrt(alpha) * noisy - math.sqrt(1 - alpha) * velocity
    wanted = ((found - clean) ** 2 / (1 - alpha)).mean()
    loss = velocity_loss(velocity, clean, noise, timestep)
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-6)
    assert torch.equal(loss, token_loss(velocity, clean, noise, timestep, 0, LossConfig(difference=0)))


def test_settings_are_the_released_ones() -> None:
    loop, config = ref_adapter_loop(), RefTrainingConfig()
    assert (loop.steps, loop.learning_rate, loop.betas, loop.eps) == (40_000, 1e-5, (0.9, 0.95), 1e-8)
    assert (loop.weight_decay, loop.max_norm) == (1e-4, 1.0)
    assert (config.rank, config.text_drop, config.picture_drop) == (64, 0.1, 0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"clips": RefClipConfig(windows=1)},
        {"rank": 8},
        {"text_drop": 0.2},
        {"picture_drop": 0.2},
        {"seed": 1},
        {"loop": replace(ref_adapter_loop(), learning_rate=1e-4)},
    ],
)
def test_every_setting_is_among_the_runs(changes: dict[str, Any]) -> None:
    plain, changed = (
        run_settings(config, [clip(20, 8)], clip_hashes=["ab"], base="cd", micro_batches=2)
        for config in (RefTrainingConfig(), RefTrainingConfig(**changes))
    )
    assert plain != changed


def test_low_ranks_begin_as_the_released_code_begins() -> None:
    weights = new_low_ranks(2, 8, 4096, seed=0)
    assert len(weights) == 2 * 4 * 2
    for name, weight in ((name, weight.detach()) for name, weight in weights.items()):
        assert weight.dtype == torch.float32
        if name.endswith("up"):
            assert weight.shape == (4096, 8)
            assert not weight.any()
        else:
            assert weight.shape == (8, 4096)
            assert float(weight.std()) == pytest.approx(1 / 8, rel=0.03)
    downs = [weight for name, weight in weights.items() if name.endswith("down")]
    assert not any(torch.equal(a, b) for i, a in enumerate(downs) for b in downs[:i])
    assert not torch.equal(downs[0], new_low_ranks(2, 8, 4096, seed=1)["0.q.down"])


def test_windows_are_8_frames_a_second_from_anywhere_and_pictures_any_frames() -> None:
    long = clip(240, 24)
    windows = [indices for number in range(40) for indices in drawn_windows(long, SMALL, 0, number)]
    assert all(b - a == 3 for indices in windows for a, b in pairwise(indices))
    starts = [indices[0] for indices in windows]
    assert min(starts) < 20
    assert 200 < max(starts) <= 240 - 25
    pictures = [index for number in range(40) for index in drawn_pictures(long, SMALL, 0, number)]
    assert min(pictures) < 10
    assert max(pictures) > 229
    assert drawn_windows(long, SMALL, 0, 3) == drawn_windows(long, SMALL, 0, 3)
    assert drawn_windows(long, SMALL, 0, 3) != drawn_windows(long, SMALL, 1, 3)


def test_pictures_of_a_short_clip_come_again() -> None:
    counts = [drawn_pictures(clip(3, 8), SMALL, 0, 0).count(frame) for frame in range(3)]
    assert sorted(counts) == [1, 2, 2]


def test_clips_that_end_too_early_are_left_out_and_named() -> None:
    enough, short = clip(25, 24, name="enough.mp4"), clip(24, 24, name="short.mp4")
    before = Skipped(Path("broken.mp4"), "it is broken")
    found = long_enough(Clips((enough, short), (before,)), SMALL)
    assert found.used == (enough,)
    assert [one.path.name for one in found.skipped] == ["broken.mp4", "short.mp4"]
    assert found.skipped[1].reason == "it ends before 9 frames are taken, 8 to 10 a second: 1 s are enough"
    with pytest.raises(ValueError, match="None of the 1 clips is long enough: 9 frames are taken, 8 to 10 a"):
        long_enough(Clips((short,), ()), SMALL)


def _moments(video_FCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Which frames these are, and how many, in latents' clothes."""
    shown = torch.tensor(frames_shown(video_FCHW), dtype=torch.float32)
    return shown.view(-1, 1, 1, 1), torch.full((len(shown), 1, 1, 1), float(len(shown)))


def test_what_is_encoded_is_what_was_drawn_at_the_size_and_comes_back_from_its_file(tmp_path: Path) -> None:
    sizes = []

    def encode(video_FCHW: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(tuple(video_FCHW.shape))
        return _moments(video_FCHW)

    write_video(tmp_path / "clips" / "a.mp4", 40, fps=24)
    found = only_clip(tmp_path / "clips")
    encoded = encode_clip(found, SMALL, encode, 0, 4)
    assert sizes == [(9, 3, 32, 48)] * 3 + [(1, 3, 32, 48)] * 5
    windows = torch.tensor(drawn_windows(found, SMALL, 0, 4), dtype=torch.float16)
    assert torch.equal(encoded.mean_WFCHW.flatten(1), windows)
    assert encoded.picture_mean_P1CHW.flatten().tolist() == drawn_pictures(found, SMALL, 0, 4)
    assert encoded_bytes(SMALL, (9, 1, 1, 1)) == sum(tensor.nbytes for tensor in vars(encoded).values())
    path = tmp_path / "clip.safetensors"
    write_encoded_clip(path, encoded)
    read = read_encoded_clip(path)
    assert all(torch.equal(a, b) for a, b in zip(vars(read).values(), vars(encoded).values(), strict=True))
    tensors, _ = read_tensors(path)
    write_tensors(path, {name: tensor for name, tensor in tensors.items() if name != "mean_WFCHW"}, {})
    with pytest.raises(ValueError, match=r"clip\.safetensors is damaged .*: remove it, and it is made again"):
        read_encoded_clip(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RefClipConfig(windows=0), "`windows` must be 1 or more, but it is 0"),
        (lambda: RefClipConfig(pictures=0), "`pictures` must be 1 or more"),
        (lambda: RefTrainingConfig(rank=0), "`rank` must be 1 or more, but it is 0: 64 is usual"),
        (
            lambda: RefTrainingConfig(picture_drop=2),
            "`picture_drop` is a chance between 0 and 1",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make: object, sentence: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=sentence):
        make()

"""The loop, the losses and the data of the small base's training, on moving rectangles."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.base import diffusion, pool, vae
from actors.base.diffusion import (
    DiffusionConfig,
    cross_frame_clips,
    first_frame_loss,
    pairs,
    plain_clips,
    train_clips,
    train_pairs,
    train_pictures,
    velocity_error,
)
from actors.base.latents import Batch, Dataset
from actors.base.models import new_motion, new_unet, new_vae
from actors.base.pool import ClipPool, PoolClip, covered, make_pool
from actors.base.sizes import IMAGE_SIZE
from actors.base.tokenizer import make_tokenizer
from actors.base.training import Limit, generator, train, where
from actors.base.vae import VAEConfig, normalise_latents, train_vae
from flash_modules.files.tensor_file import read_tensors

torch.set_num_threads(1)

WORDS = ("a", "red", "green", "box", "moves", ",", "push-up")
SMALL = DiffusionConfig(pictures=2, pairs=2, clips=1, picture_steps=0.25, pair_steps=0.25, plain_steps=0.25)


def moving_box(seed: int, index: int) -> PoolClip:
    draws = np.random.default_rng((seed, index))
    frames_FHW3 = np.full((8, IMAGE_SIZE, IMAGE_SIZE, 3), draws.integers(256, size=3), np.uint8)
    inside_FHW = np.zeros(frames_FHW3.shape[:3], bool)
    color, left = draws.integers(256, size=3), draws.integers(30)
    for f in range(8):
        inside_FHW[f, 40:90, left + 4 * f : left + 4 * f + 30] = True
    frames_FHW3[inside_FHW] = color
    caption = "a red box moves" if index % 2 else "a green box moves"
    return PoolClip(frames_FHW3, covered(inside_FHW), caption)


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipPool:
    monkeypatch.setattr(pool, "CHUNK", 3)
    make_pool(tmp_path / "pool", moving_box, 6, seed=0, workers=1)
    return ClipPool(tmp_path / "pool", 6)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    latents_KFCHW = torch.randn(4, 8, 4, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    tokenizer = make_tokenizer(tmp_path / "tokenizer", WORDS)
    captions = ["a red box", "a green box", "a box moves", "a box"]
    figures_KFHW = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(-1, 8, 4, 4)
    return Dataset(latents_KFCHW, figures_KFHW, captions, tokenizer)


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "loss.csv").open(encoding="utf-8") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


class Killed(Exception):
    pass


def killed_in_step_3() -> Limit:
    """A run that saves step 1, ends step 2 and is gone in step 3."""
    times = iter((0.0, 1.0, 1.5))

    def clock() -> float:
        for now in times:
            return now
        raise Killed

    return Limit(steps=3, save_every=1, clock=clock)


def check_resume(run: Callable[[Path, Limit], None], tmp_path: Path, stage: str) -> None:
    """A run that is killed repeats an uninterrupted one bit for bit, from the last saved step on."""
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir(exist_ok=True)
    run(tmp_path / "whole", Limit(steps=3))
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_in_step_3())
    assert where(tmp_path / "killed" / stage)["steps"] == 1
    assert len(losses(tmp_path / "killed" / stage)) == 2
    run(tmp_path / "killed", Limit(steps=3))
    assert losses(tmp_path / "killed" / stage) == losses(tmp_path / "whole" / stage)
    for file in ("checkpoint-3/trainable", "checkpoint-3/optimizer", "averaged"):
        states = [tmp_path / name / stage / f"{file}.safetensors" for name in ("whole", "killed")]
        (whole, _), (killed, _) = map(read_tensors, states)
        assert whole.keys() == killed.keys()
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_vae_resumed_is_vae_uninterrupted(clips: ClipPool, tmp_path: Path) -> None:
    config = VAEConfig(batch=2)
    run = lambda out, limit: train_vae(out, clips, limit, seed=0, config=config)  # noqa: E731
    check_resume(run, tmp_path, "vae")


def test_pictures_pairs_and_clips_resumed_are_those_uninterrupted(data: Dataset, tmp_path: Path) -> None:
    stages = {"pictures": train_pictures, "pairs": train_pairs, "clips": train_clips}
    for stage, train_stage in stages.items():
        run = lambda out, limit, train=train_stage: train(out, data, limit, seed=3, config=SMALL)  # noqa: E731
        check_resume(run, tmp_path, stage)


def test_clips_are_learned_from_in_every_way(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = set()

    def note(name: str) -> None:
        loss = getattr(diffusion, name)

        def noted(of: object, batch: Batch, *args: Any) -> Tensor:
            ways.add((name, batch.latents.shape[1] if batch.latents.ndim == 5 else 1))
            return loss(of, batch, *args)

        monkeypatch.setattr(diffusion, name, noted)

    for name in ("picture_loss", "plain_loss", "first_frame_loss"):
        note(name)
    for train_stage, steps in ((train_pictures, 1), (train_pairs, 1), (train_clips, 16)):
        ways.clear()
        train_stage(tmp_path, data, Limit(steps=steps), seed=3, config=SMALL)
    assert ways == {("picture_loss", 1), ("first_frame_loss", 2), ("plain_loss", 8), ("first_frame_loss", 8)}


def test_longer_limit_goes_on(data: Dataset, tmp_path: Path) -> None:
    ticks = iter(range(100))
    limit = Limit(seconds=2, clock=lambda: next(ticks))
    train_pictures(tmp_path, data, limit, seed=0, config=SMALL)
    assert where(tmp_path / "pictures")["steps"] == 2
    train_pictures(tmp_path, data, limit, seed=0, config=SMALL)
    assert where(tmp_path / "pictures")["steps"] == 2
    train_pictures(tmp_path, data, Limit(seconds=3, clock=lambda: next(ticks)), seed=0, config=SMALL)
    assert where(tmp_path / "pictures")["steps"] == 3


def test_loss_that_is_not_finite_stops_the_stage(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"unet": torch.nn.Linear(2, 2)})
    loss = lambda step, over: model["unet"](torch.full((1, 2), torch.inf)).sum()  # noqa: E731
    recipe = diffusion.Recipe(lr=1e-3, parts=("unet",))
    with pytest.raises(RuntimeError, match="non-finite"):
        train(tmp_path / "x", model, loss, recipe, Limit(steps=1))


def test_missing_stage_says_which_one_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the stage `vae` first"):
        where(tmp_path / "vae")


def test_clean_pictures_count_by_how_much_is_seen_of_them() -> None:
    timestep_B = torch.tensor([0, 200, 999])
    signal_B = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    signal_B = (1 - signal_B).cumprod(0)[timestep_B]
    snr_B = signal_B / (1 - signal_B)
    clean_B, spread_B = torch.tensor([0.1, 0.2, 0.3]), (1 - signal_B).sqrt()
    v_B1 = (-clean_B / spread_B)[:, None]  # what clean pictures with this error come from
    expected = (torch.minimum(snr_B, torch.tensor(5.0)) + 0.25) * clean_B**2
    found = velocity_error(v_B1.float(), torch.zeros(3, 1), timestep_B)
    torch.testing.assert_close(found, expected.mean().float(), rtol=1e-3, atol=0)


def test_clean_first_frame_is_out_of_the_loss() -> None:
    latents_BFCHW = torch.randn(2, 3, 4, 5, 6)
    v_BFCHW = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    seen = []

    def predict(latents: Tensor, timestep: Tensor, text_embeds: Tensor) -> Tensor:
        seen.append(latents)
        return v_BFCHW

    batch = Batch(latents_BFCHW, torch.zeros(2, 1), torch.rand(2, 3, 5, 6))
    first_frame_loss(predict, batch, 3.0, torch.zeros(2, 1, 8), generator(0, "x", 0)).backward()
    assert torch.equal(seen[0][:, 0], latents_BFCHW[:, 0])
    assert not torch.isclose(seen[0][:, 1:], latents_BFCHW[:, 1:]).any(-1).all()
    assert not v_BFCHW.grad[:, 0].any()
    assert v_BFCHW.grad[:, 1:].all()


def test_one_unet_is_trained_in_each_way_and_is_then_what_it_was() -> None:
    unet, motion = new_unet(0), new_motion(1)
    torch.nn.init.ones_(next(w for n, w in motion.named_parameters() if "proj_out.w" in n))
    latents_BFCHW, text_embeds = torch.randn(1, 2, 4, 4, 4), torch.randn(1, 32, 64)
    timestep = torch.tensor([500])

    def plain() -> Tensor:
        return unet(latents_BFCHW[0], 500, text_embeds.expand(2, -1, -1)).sample[None]

    with torch.no_grad():
        before, processors, names = plain(), unet.attn_processors, [*unet.state_dict()]
        found = [before]
        for way in (pairs(unet), plain_clips(unet, motion), cross_frame_clips(unet, motion)):
            with way as predict:
                found.append(predict(latents_BFCHW, timestep, text_embeds))
            assert torch.equal(plain(), before)
            assert all(unet.attn_processors[name] is there for name, there in processors.items())
            assert [*unet.state_dict()] == names
    for i, one in enumerate(found):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in found[:i])


def test_a_step_that_fails_leaves_the_unet_as_it_was() -> None:
    unet, motion = new_unet(0), new_motion(1)
    for way in (pairs(unet), plain_clips(unet, motion), cross_frame_clips(unet, motion)):
        with pytest.raises(Killed), way:
            raise Killed
    with plain_clips(unet, motion):  # it has no motion from before
        pass


def test_normalised_latents_have_spread_1_and_the_same_pictures(clips: ClipPool) -> None:
    model = new_vae(0).eval()
    pixels_BCHW = vae.to_pixels(torch.from_numpy(np.array(clips.chunks_KFHW3[0][:, 0])))
    decode = lambda: model.decode(model.encode(pixels_BCHW).latent_dist.mean).sample  # noqa: E731
    with torch.no_grad():
        before, variance = decode(), model.encode(pixels_BCHW).latent_dist
        normalise_latents(model, pixels_BCHW)
        after, latents_BCHW = decode(), model.encode(pixels_BCHW).latent_dist.mean * 0.18215
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(latents_BCHW.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents_BCHW.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    ratio = model.encode(pixels_BCHW).latent_dist.std / variance.std
    assert torch.allclose(ratio, ratio.mean(dim=(0, 2, 3), keepdim=True), rtol=1e-2)


def test_pool_grows_without_touching_what_is_there(clips: ClipPool, tmp_path: Path) -> None:
    before = [path.stat().st_mtime_ns for path in clips.paths]
    make_pool(tmp_path / "pool", moving_box, 7, seed=0, workers=1)
    larger = ClipPool(tmp_path / "pool", 7)
    assert [path.stat().st_mtime_ns for path in larger.paths[:2]] == before
    assert len(larger) == 7
    assert np.array_equal(larger.frame(6, 5), moving_box(0, 6).frames_FHW3[5])
    assert np.array_equal(larger.figures_KFHW[6], moving_box(0, 6).figures_FHW)
    assert np.array_equal(larger.frames_KFHW3[6, 5], larger.frame(6, 5))
    with pytest.raises(ValueError, match="holds clips of seed 0"):
        make_pool(tmp_path / "pool", moving_box, 7, seed=1, workers=1)
    with pytest.raises(ValueError, match=r"lacks 00003\.npy: run the stage `pool`"):
        ClipPool(tmp_path / "pool", 10)


def test_pairs_are_two_frames_of_a_clip(data: Dataset) -> None:
    pairs_B2CHW, tokens_BM, _ = data.draw_pairs(40, generator(0, "x", 0), 0.0)
    found = []
    for pair_2CHW, tokens_M in zip(pairs_B2CHW, tokens_BM, strict=True):
        same_KF2 = (data.latents_KFCHW[:, :, None] == pair_2CHW.half()).flatten(3).all(dim=3)
        (_, first_clip, first), (_, second_clip, second) = sorted(
            (int(which), int(clip), int(frame)) for clip, frame, which in same_KF2.nonzero()
        )
        assert first_clip == second_clip
        assert torch.equal(tokens_M, data.tokens_KM[first_clip])
        found.append((first, second))
    assert all(first != second for first, second in found)
    assert any(first > second for first, second in found)
    assert any(first < second for first, second in found)


def test_dropped_captions_are_the_empty_prompt(data: Dataset) -> None:
    latents_BCHW, tokens_BM, _ = data.draw_pictures(5, generator(0, "x", 0), 1.0)
    assert latents_BCHW.shape == (5, 4, 4, 4)
    assert (tokens_BM == data.empty_M).all()
    _, tokens_BM, _ = data.draw_clips(5, generator(0, "x", 0), 0.0)
    assert not (tokens_BM == data.empty_M).all(dim=1).any()


def test_figures_are_drawn_with_their_latents(data: Dataset) -> None:
    figures_KFHW = torch.randint(256, (4, 8, 4, 4), generator=generator(1, "x", 0), dtype=torch.uint8)
    alike = replace(data, latents_KFCHW=figures_KFHW[:, :, None].half(), figures_KFHW=figures_KFHW)
    for draw in (alike.draw_pictures, alike.draw_pairs, alike.draw_clips):
        latents, _, figures = draw(6, generator(0, "x", 0), 0.0)
        torch.testing.assert_close(255 * figures, latents.squeeze(-3))


def test_error_of_figures_counts_by_their_weight() -> None:
    latents_BCHW, figures_BHW = torch.zeros(1, 4, 2, 3), torch.zeros(1, 2, 3)
    figures_BHW[0, 1, 2] = 1
    where_figures = diffusion._weights(Batch(latents_BCHW, torch.zeros(1, 1), figures_BHW), 3.0)
    assert where_figures.tolist() == [[[[1, 1, 1], [1, 1, 3]]]]
    assert [DiffusionConfig(figures=3.0).figures_at(over) for over in (0, 0.75, 0.875, 1)] == [3, 3, 2, 1]


def test_learning_rate_rises_stays_and_falls_in_the_second_half() -> None:
    recipe = diffusion.Recipe(lr=2.0, parts=(), warmup=4)
    assert [recipe.lr_at(step, 0.1) for step in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert [round(recipe.lr_at(9, over), 3) for over in (0.5, 0.75, 1.0)] == [2.0, 1.0, 0.0]


def test_batches_grow_together() -> None:
    large = SMALL.times(16)
    assert (large.pictures, large.pairs, large.clips) == (32, 32, 16)
    assert large.pair_steps == SMALL.pair_steps

"""The loss of action tokens, and what a micro-batch draws."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.flash_modules.flexiact.noise_schedule import alphas_cumprod
from flash_pack.flash_modules.flexiact.training.encoded import EncodedView, view_tensors, views_from
from flash_pack.flash_modules.flexiact.training.lesson import Lesson, kept_lesson, read_lesson, write_lesson
from flash_pack.flash_modules.flexiact.training.loss import LossConfig, noisy_latents, token_loss
from flash_pack.flash_modules.flexiact.training.token_training import (
    TokenTraining,
    TokenTrainingConfig,
    draw,
    token_loop,
)

SHAPE = (4, 3, 5, 6)


def _view(seed: int, frames: int = 4) -> EncodedView:
    generator = torch.Generator().manual_seed(seed)
    video, picture = (frames, *SHAPE[1:]), (1, *SHAPE[1:])
    mean, picture_mean = (torch.randn(shape, generator=generator) for shape in (video, picture))
    return EncodedView(mean, torch.full(video, 0.5), picture_mean, torch.full(picture, 0.25))


@pytest.mark.parametrize("timestep", [0, 499, 998, 999])
@pytest.mark.parametrize("pair", [0, 2])
def test_the_loss_is_that_of_the_released_code(timestep: int, pair: int) -> None:
    """Written there on the clean latents: their error over 1 - alpha, and that of a difference of frames."""
    clean, noise, velocity = torch.randn(SHAPE), torch.randn(SHAPE), torch.randn(SHAPE)
    alpha = float(alphas_cumprod()[timestep])
    noisy = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise
    found_clean = math.sqrt(alpha) * noisy - math.sqrt(1 - alpha) * velocity
    difference, wanted_difference = (
        math.sqrt(2) * video[pair + 1] - video[pair] for video in (found_clean, clean)
    )
    first = ((found_clean - clean) ** 2 / (1 - alpha)).mean()
    second = ((difference - wanted_difference) ** 2).mean()
    torch.testing.assert_close(noisy_latents(clean, noise, timestep), noisy)
    for weight in (0.0, 1.0, 0.5):
        config = LossConfig(difference=weight)
        found = token_loss(velocity, clean, noise, timestep, pair, config)
        torch.testing.assert_close(found, first + weight * second, rtol=2e-4, atol=1e-6)


def test_a_right_velocity_costs_nothing() -> None:
    clean, noise, alpha = torch.randn(SHAPE), torch.randn(SHAPE), float(alphas_cumprod()[300])
    velocity = math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * clean
    assert token_loss(velocity, clean, noise, 300, 0, LossConfig()) == 0


def test_a_look_that_is_off_by_the_same_in_all_frames_costs_less_than_motion() -> None:
    """sqrt(2) - 1 of a constant is left in the difference of two frames."""
    clean, noise, alpha = torch.zeros(SHAPE), torch.zeros(SHAPE), float(alphas_cumprod()[300])
    look, motion = torch.ones(SHAPE), torch.ones(SHAPE)
    motion[1::2] = -1
    first = token_loss(look, clean, noise, 300, 0, LossConfig(difference=0))
    costs = [float(token_loss(off, clean, noise, 300, 0, LossConfig()) - first) for off in (look, motion)]
    assert costs[0] == pytest.approx((1 - alpha) * (math.sqrt(2) - 1) ** 2, rel=1e-4)
    assert costs[1] == pytest.approx((1 - alpha) * (math.sqrt(2) + 1) ** 2, rel=1e-4)


def test_at_the_last_timestep_there_is_noise_alone() -> None:
    noise = torch.randn(SHAPE)
    assert torch.equal(noisy_latents(torch.randn(SHAPE), noise, 999), noise)


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    views = [_view(0), _view(1)]
    config = TokenTrainingConfig()
    for one, other in zip(
        vars(draw(views, config, 7)).items(), vars(draw(views, config, 7)).items(), strict=True
    ):
        assert torch.equal(torch.as_tensor(one[1]), torch.as_tensor(other[1]))
    noises = [
        draw(views, settings, number).noise_FCHW
        for settings, number in ((config, 7), (config, 8), (TokenTrainingConfig(seed=1), 7))
    ]
    assert not torch.equal(noises[0], noises[1])
    assert not torch.equal(noises[0], noises[2])


def test_chances_are_those_that_are_said() -> None:
    views = [_view(seed) for seed in range(3)]
    config = TokenTrainingConfig(text_drop=0.3, picture_drop=0.2)
    drawn = [draw(views, config, number) for number in range(600)]
    assert sum(not one.with_text for one in drawn) / 600 == pytest.approx(0.3, abs=0.06)
    assert sum(not one.picture_FCHW.any() for one in drawn) / 600 == pytest.approx(0.2, abs=0.06)
    assert {one.pair for one in drawn} == {0, 1, 2}
    assert min(one.timestep for one in drawn) < 10
    assert max(one.timestep for one in drawn) > 989
    nearest = [
        min(range(3), key=lambda i: float((one.clean_FCHW - views[i].mean_FCHW).norm())) for one in drawn
    ]
    assert all(150 < nearest.count(i) < 250 for i in range(3))


def test_latents_are_drawn_anew_around_their_means_and_the_picture_apart() -> None:
    view, config = _view(0), TokenTrainingConfig(picture_drop=0)
    drawn = [draw([view], config, number) for number in range(400)]
    clean = torch.stack([one.clean_FCHW for one in drawn])
    picture = torch.stack([one.picture_FCHW for one in drawn])
    torch.testing.assert_close(clean.mean(0), view.mean_FCHW, atol=0.15, rtol=0)
    torch.testing.assert_close(clean.std(0), view.deviation_FCHW, atol=0.12, rtol=0)
    torch.testing.assert_close(picture[:, 0].mean(0), view.picture_mean_1CHW[0], atol=0.08, rtol=0)
    torch.testing.assert_close(picture[:, 0].std(0), view.picture_deviation_1CHW[0], atol=0.06, rtol=0)
    assert not picture[:, 1:].any()
    off = (clean[:, 0] - view.mean_FCHW[0]).flatten(), (picture[:, 0] - view.picture_mean_1CHW[0]).flatten()
    assert abs(torch.corrcoef(torch.stack(off))[0, 1]) < 0.03


def test_views_go_into_a_file_and_come_back() -> None:
    views = [_view(0), _view(1)]
    tensors = view_tensors(views)
    for view, found in zip(views, views_from(tensors, 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(vars(view).values(), vars(found).values(), strict=True))
    del tensors["1.deviation"]
    with pytest.raises(ValueError, match=r"it lacks 1\.deviation"):
        views_from(tensors, 2)


def test_settings_are_the_papers() -> None:
    loop = token_loop()
    assert (loop.steps, loop.learning_rate, loop.betas, loop.eps) == (2000, 3e-3, (0.9, 0.95), 1e-8)
    assert (loop.weight_decay, loop.max_norm, loop.save_steps) == (1e-4, 1.0, 250)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LossConfig(difference=-1), "`difference` must be 0 .off. or more, but it is -1"),
        (
            lambda: TokenTrainingConfig(text_drop=1.5),
            "`text_drop` is a chance between 0 and 1, but it is 1.5",
        ),
        (lambda: TokenTrainingConfig(picture_drop=-1), "`picture_drop` is a chance"),
        (
            lambda: Lesson(
                views=[_view(0, frames=1)],
                caption="",
                text_embeds=torch.zeros(1),
                empty_embeds=torch.zeros(1),
                clip_sha256="",
            ),
            "needs 5 frames or more",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(make: object, sentence: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=sentence):
        make()


def _lesson() -> Lesson:
    return Lesson(
        views=[_view(0), _view(1)],
        caption="a dog",
        text_embeds=torch.randn(1, 5, 6),
        empty_embeds=torch.randn(1, 5, 6),
        clip_sha256="ab",
    )


def test_a_lesson_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> Lesson:
        made.append(_lesson())
        return made[-1]

    first, again = (kept_lesson(tmp_path / "lesson.safetensors", make) for _ in range(2))
    assert len(made) == 1
    for found in (first, again):
        assert (found.caption, found.clip_sha256) == ("a dog", "ab")
        assert torch.equal(found.text_embeds, made[0].text_embeds)
        assert torch.equal(found.empty_embeds, made[0].empty_embeds)
        assert all(
            torch.equal(a.mean_FCHW, b.mean_FCHW) for a, b in zip(found.views, made[0].views, strict=True)
        )


@pytest.mark.parametrize("missing", ["text", "1.mean"])
def test_a_damaged_lesson_is_refused(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "lesson.safetensors"
    write_lesson(path, _lesson())
    tensors, header = read_tensors(path)
    del tensors[missing]
    write_tensors(path, tensors, header)
    with pytest.raises(
        ValueError, match=r"lesson\.safetensors is damaged .*: remove it, and it is made again"
    ):
        read_lesson(path)


def test_every_view_has_its_own_caption(tmp_path: Path) -> None:
    """Also after the lesson was written and read."""
    texts = torch.randn(2, 5, 6)
    written = replace(_lesson(), views=[_view(i) for i in range(3)], text_embeds=texts, caption_of=(1, 0, 1))
    write_lesson(tmp_path / "lesson.safetensors", written)
    lesson, config = read_lesson(tmp_path / "lesson.safetensors"), TokenTrainingConfig()
    seen: list[torch.Tensor] = []

    def predict(latents: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(others[-1])
        return latents

    host: Any = SimpleNamespace(device=torch.device("cpu"), predict=predict)
    for number in range(60):
        TokenTraining(host, lesson, config).loss(number)
        drawn = draw(lesson.views, config, number)
        wanted = texts[None, (1, 0, 1)[drawn.view]] if drawn.with_text else lesson.empty_embeds
        assert torch.equal(seen[-1], wanted)


@pytest.mark.parametrize("caption_of", [(0,), (0, 1), (0, -1)])
def test_captions_of_other_views_are_refused(caption_of: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="captions are not those of its views"):
        replace(_lesson(), caption_of=caption_of)

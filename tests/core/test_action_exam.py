"""The exam of an action: what it keeps aside and asks, and that the training takes no notice of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flash_pack.flash_modules.flash.augment import AugmentConfig, draw_augmentation, strange_look
from flash_pack.flash_modules.flash.training.action_training import ActionTraining, ActionTrainingConfig
from flash_pack.flash_modules.flash.training.exam import ExamConfig, draw_aside, weighted_by_motion
from flash_pack.flash_modules.flash.training.latent_pool import PoolConfig
from flash_pack.flash_modules.flash.training.method import MethodConfig
from flash_pack.flash_modules.flash.training.noise_law import DiffusionNoise
from flash_pack.flash_modules.training.clips import Clip, find_clips
from flash_pack.flash_modules.training.exam import read_marks
from flash_pack.flash_modules.training.loop import LoopConfig
from flash_pack.flash_modules.training.run_folder import RunFolder, read_losses
from flash_pack.flash_modules.training.sampling import SamplingConfig, seeded
from flash_pack.tests.core.small_clips import clip as make_clip
from flash_pack.tests.core.small_clips import write_folder
from flash_pack.tests.core.tiny_host import TinyHost, tiny_predict

SIZE, F = 16, 3
CONFIG = ActionTrainingConfig(
    method=MethodConfig(augment=AugmentConfig(size=SIZE)),
    sampling=SamplingConfig(num_frames=F),
    pool=PoolConfig(per_clip=2),
    loop=LoopConfig(steps=100, learning_rate=0.01),
    exam=ExamConfig(),
)
Start = Callable[..., ActionTraining[TinyHost]]


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    folder = tmp_path_factory.mktemp("clips") / "jump"
    for number in range(7):
        write_folder(folder / str(number), num_frames=10 + number)
    return find_clips([folder]).used


@pytest.fixture
def start(seven: tuple[Clip, ...]) -> Start:
    def start(count: int = 3, config: ActionTrainingConfig = CONFIG) -> ActionTraining[TinyHost]:
        return ActionTraining(TinyHost(), seven[:count], config)

    return start


@pytest.mark.parametrize(
    ("count", "kept"), [(1, 0), (5, 0), (6, 1), (11, 1), (12, 2), (18, 3), (24, 4), (500, 4)]
)
def test_a_sixth_of_an_action_is_kept_aside(count: int, kept: int) -> None:
    clips = [make_clip(20, 24.0)] * count
    assert len(draw_aside(clips, seed=0)) == kept


def test_each_action_keeps_its_own_and_the_seed_says_which() -> None:
    clips = [*[make_clip(20, 24.0, "jump")] * 6, *[make_clip(20, 24.0, "run")] * 5]
    drawn = {draw_aside(clips, seed) for seed in range(30)}
    assert drawn == {(i,) for i in range(6)}
    assert draw_aside(clips, 3) == draw_aside(clips, 3)


def test_no_step_learns_from_what_is_kept_aside(start: Start, tmp_path: Path) -> None:
    training = start(7)
    (aside,) = training.kept_aside
    assert len(training.clips) == 6
    assert aside not in training.clips
    assert training.pool(tmp_path).clips == training.clips
    settings = training.settings(1)
    assert len(settings["clips"]) == 6
    assert settings["exam"]["clips"][0]["sha256"] not in [clip["sha256"] for clip in settings["clips"]]
    assert len(training.learned(1).clip_hashes) == 6


def test_few_clips_are_all_learned_from_and_the_looks_are_strange(start: Start) -> None:
    training = start(5)
    assert len(training.clips) == 5
    assert training.settings(1)["exam"]["hues"] == (0.375, 0.5)
    exam = training.exam()
    assert exam is not None
    for strange, own in zip(exam.questions.aside, exam.questions.learned, strict=True):
        assert strange.caption == own.caption
        assert strange.name == own.name  # so of the same noise
        assert not torch.equal(strange.latents_1FCHW, own.latents_1FCHW)


def test_training_never_draws_a_strange_look() -> None:
    config, generator = AugmentConfig(), torch.Generator().manual_seed(0)
    for _ in range(500):
        drawn = draw_augmentation(config, generator)
        strange = strange_look(drawn, config, generator)
        assert abs(dict(drawn.colours)["hue"]) <= 0.25 < 0.375 <= abs(dict(strange.colours)["hue"]) <= 0.5
        assert [name for name, _ in strange.colours] == [name for name, _ in drawn.colours]
        assert replace(strange, colours=drawn.colours) == drawn


def test_without_a_look_that_is_left_no_exam_can_be_taken(start: Start) -> None:
    method = MethodConfig(augment=AugmentConfig(size=SIZE, hue=0.5))
    with pytest.raises(ValueError, match=r"none is left for an exam: set it below 0\.5, or take no exam"):
        start(3, replace(CONFIG, method=method)).settings(1)


@pytest.mark.parametrize("count", [3, 7])
def test_training_is_bit_for_bit_the_same_with_an_exam(
    start: Start, seven: tuple[Clip, ...], tmp_path: Path, count: int
) -> None:
    """Of the same clips; the state of torch's own generator is nobody's."""
    examined = start(count)
    examined.run(RunFolder(tmp_path, "examined", examined.settings(1)))
    assert [one.step for one in read_marks(tmp_path / "examined")] == [0, 100]
    plain = ActionTraining(TinyHost(), examined.clips, replace(CONFIG, exam=None))
    plain.run(RunFolder(tmp_path, "plain", plain.settings(1)))
    assert all(torch.equal(w, plain.host.weights[name]) for name, w in examined.host.weights.items())
    losses = [read_losses(tmp_path / name / "loss.csv") for name in ("examined", "plain")]
    assert losses[0] == losses[1]


def test_it_asks_the_same_whenever_it_is_asked(start: Start) -> None:
    training, again = start(7), start(7)
    exam, other = training.exam(), again.exam()
    assert exam is not None
    assert other is not None
    torch.manual_seed(1)
    first = exam()
    torch.manual_seed(2)
    assert exam() == first == other()
    with torch.no_grad():
        training.host.weights["keep"].add_(1.0)
    assert exam() != first
    assert all(weight.grad is None for weight in training.host.weights.values())


def test_its_error_is_that_of_a_slow_loop(start: Start) -> None:
    training = start(3)
    exam = training.exam()
    assert exam is not None
    errors = []
    for video in exam.questions.learned:
        for timestep in exam.timesteps:
            z_FCHW = video.latents_1FCHW[0]
            generator = seeded(0, "exam noise", *video.name, timestep)
            noise_FCHW = torch.randn(1, *z_FCHW.shape, generator=generator)[0]
            noised = DiffusionNoise("epsilon").noised(
                z_FCHW[None], noise_FCHW[None], torch.tensor([timestep])
            )
            text = training.embeds(video.caption)
            found_FCHW = tiny_predict(training.host.weights, noised, text)[0].detach()
            total = weight = 0.0
            for f in range(1, F):
                for y in range(SIZE // 4):
                    for x in range(SIZE // 4):
                        moves = float((z_FCHW[f, :, y, x] - z_FCHW[f - 1, :, y, x]).square().mean()) + 1e-6
                        off = float((found_FCHW[f, :, y, x] - noise_FCHW[f, :, y, x]).square().mean())
                        total, weight = total + moves * off, weight + moves
            errors.append(total / weight)
    assert exam()[1] == pytest.approx(sum(errors) / len(errors), rel=1e-5)


def test_only_errors_where_something_moves_count() -> None:
    latents_BFCHW = torch.zeros(1, 3, 2, 4, 5)
    latents_BFCHW[:, 1:, :, 1, 2] = 3.0
    errors_BGCHW = torch.zeros(1, 2, 2, 4, 5)
    errors_BGCHW[:, 0, :, 1, 2] = 7.0  # it comes into frame 1 there, and stays
    assert weighted_by_motion(errors_BGCHW, latents_BFCHW) == pytest.approx(7.0, rel=1e-4)
    assert weighted_by_motion(7.0 - errors_BGCHW, latents_BFCHW) == pytest.approx(0.0, abs=1e-3)


def test_of_a_still_clip_all_errors_count_alike() -> None:
    errors_BGCHW = torch.rand(1, 2, 2, 4, 5)
    found = weighted_by_motion(errors_BGCHW, torch.ones(1, 3, 2, 4, 5))
    assert found == pytest.approx(float(errors_BGCHW.mean()))


def test_predictions_of_exams_are_a_twentieth_of_those_of_steps(start: Start, tmp_path: Path) -> None:
    """A step predicts its videos once there and once, at least, back."""
    training = start(3, replace(CONFIG, loop=LoopConfig(steps=230)))
    calls: list[tuple[bool, int]] = []
    predict = training.host.predict

    def counted(latents_BFCHW: Tensor, *rest: object) -> Tensor:
        calls.append((torch.is_grad_enabled(), latents_BFCHW.shape[0]))
        return predict(latents_BFCHW, *rest)  # type: ignore[arg-type]

    training.host.predict = counted  # type: ignore[assignment, method-assign]
    training.run(RunFolder(tmp_path, "run", training.settings(1)))
    steps = sum(videos for learns, videos in calls if learns)
    exams = sum(videos for learns, videos in calls if not learns)
    assert exams == 3 * 8
    assert exams <= 0.05 * 2 * steps


def test_settings_of_a_run_without_exam_are_those_of_before(start: Start) -> None:
    settings = start(7, replace(CONFIG, exam=None)).settings(1)
    assert "exam" not in settings
    assert len(settings["clips"]) == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"videos": 0}, "`videos` of an exam must be 1 or more"),
        ({"timesteps": ()}, "`timesteps` of an exam must lie between 0 and 999"),
        ({"timesteps": (1000,)}, "`timesteps` of an exam must lie between 0 and 999"),
    ],
)
def test_an_exam_that_asks_nothing_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ExamConfig(**changes)

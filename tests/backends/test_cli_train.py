"""`python -m flash_modules train`: from clips to an action that animates; going on; mistakes."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.files.tensor_file import read_tensors
from flash_pack.flash_modules.flash.action_file import read_action, standalone_motion
from flash_pack.flash_modules.flash.training.action_training import ActionTraining
from flash_pack.flash_modules.flash.training.method import VARIANTS
from flash_pack.flash_modules.training.cost import Cost
from flash_pack.flash_modules.training.run_folder import read_losses
from flash_pack.tests.backends.command_line import cheap_counting, run_command, sentence_of
from flash_pack.tests.backends.small_models import small_motion, write_gif

COUNT = ActionTraining.cost


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Only tests of counting count."""
    with cheap_counting():
        yield


def run_train(training_files: Path, runs: Path, *flags: str, **changes: object) -> int:
    """Runs the command with arguments that work, except for those that are given; None leaves one out."""
    arguments = {
        "base": training_files / "base",
        "motion": training_files / "motion.safetensors",
        "clips": training_files / "run_fast",
        "out": "jump",
        "runs": runs,
        "frames": 3,
        "size": 16,
        "steps": 3,
        "pool": 2,
        "lr": 1e-3,
        "device": "cpu",
        **changes,
    }
    return run_command("train", arguments, *flags)


@pytest.fixture
def train(training_files: Path, tmp_path: Path) -> Callable[..., int]:
    """`run_train` with runs of its own."""
    return partial(run_train, training_files, tmp_path / "runs")


@pytest.fixture(scope="module")
def variants(training_files: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run of three steps of each variant; 5 is the default."""
    runs = tmp_path_factory.mktemp("variants")
    with cheap_counting():
        assert run_train(training_files, runs, out="5") == 0
        for variant in sorted({*VARIANTS} - {5}):
            assert run_train(training_files, runs, out=str(variant), variant=variant) == 0
    return {variant: runs / str(variant) for variant in VARIANTS}


@pytest.fixture
def begun(variants: dict[int, Path], tmp_path: Path) -> Path:
    """A run of three steps, `jump`, that may be gone on with."""
    return shutil.copytree(variants[5], tmp_path / "runs" / "jump")


def trained(run: Path, step: int = 3) -> dict[str, torch.Tensor]:
    tensors, _ = read_tensors(run / f"checkpoint-{step}" / "trainable.safetensors")
    return tensors


def test_a_base_that_predicts_velocity_learns_velocity(
    train: Callable[..., int], variants: dict[int, Path], training_files: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(training_files / "base", tmp_path / "base")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    assert train(steps=1, base=folder) == 0
    run = tmp_path / "runs" / "jump"
    noise, velocity = (read_losses(folder / "loss.csv")[0] for folder in (variants[5], run))
    assert noise != velocity
    action = read_action(run / "jump.safetensors")
    assert action.header["modelspec.prediction_type"] == "v"


def test_the_action_of_a_run_animates(
    variants: dict[int, Path], training_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shutil.copy(variants[5] / "5.safetensors", tmp_path / "jump.safetensors")
    action = read_action(path)
    assert (action.name, action.kind, action.frames) == ("jump", "compact", 3)
    assert set(action.prompts) == {"run fast", "a girl runs"}
    assert any(diff.abs().max() > 0 for diff in action.kv_diffs.values())
    header = {key: json.loads(action.header[f"flash.{key}"]) for key in ("data", "align", "steps", "seed")}
    assert header["data"]["n_clips"] == 2
    assert header["align"]["tau"] == 90.0
    assert (header["steps"], header["seed"]) == (3, 0)
    assert action.header["modelspec.prediction_type"] == "epsilon"
    assert not any(str(folder) in json.dumps(dict(action.header)) for folder in (training_files, variants[5]))
    arguments = {"base": training_files / "base", "motion": training_files / "motion.safetensors"}
    arguments |= {"action": path, "image": training_files / "picture.png", "prompt": "a girl", "frames": 3}
    arguments |= {"steps": 1, "size": "32x16", "device": "cpu", "out": tmp_path / "video.gif"}
    assert run_command("animate", arguments) == 0
    assert "it may differ" not in capsys.readouterr().err


def test_a_standalone_action_brings_its_motion_module(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("--standalone", steps=1) == 0
    action = read_action(tmp_path / "runs" / "jump" / "jump.safetensors")
    assert standalone_motion(action).config == small_motion(layers=1).config


def test_a_run_in_two_sittings_is_a_run_in_one(
    train: Callable[..., int], variants: dict[int, Path], tmp_path: Path
) -> None:
    assert train(steps=1) == 0
    assert train() == 0
    whole, two = trained(variants[5]), trained(tmp_path / "runs" / "jump")
    assert whole.keys() == two.keys()
    assert all(torch.equal(whole[name], two[name]) for name in whole)


def test_samples_on_the_way_change_nothing(
    train: Callable[..., int], variants: dict[int, Path], training_files: Path, tmp_path: Path
) -> None:
    assert train(image=training_files / "picture.png", **{"sample-steps": 2}) == 0
    run = tmp_path / "runs" / "jump"
    assert [path.name for path in run.glob("*.mp4")] == ["sample-000002.mp4"]
    plain, watched = trained(variants[5]), trained(run)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns(variants: dict[int, Path], variant: int) -> None:
    assert trained(variants[variant])


def test_variants_differ(variants: dict[int, Path]) -> None:
    results = [trained(run) for run in variants.values()]
    for i, one in enumerate(results):
        for other in results[i + 1 :]:
            assert any(not torch.equal(one[name], other[name]) for name in one)


def test_whole_motion_modules_can_be_trained(train: Callable[..., int], tmp_path: Path) -> None:
    assert train(steps=1, trainable="motion_module") == 0
    assert any(".ff." in name for name in trained(tmp_path / "runs" / "jump", 1))


@pytest.mark.usefixtures("begun")
def test_another_trainable_set_under_the_same_name_is_refused(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=4, trainable="motion_module") == 2
    assert "'jump' was begun with other settings (method:" in capsys.readouterr().err


@pytest.mark.usefixtures("begun")
def test_other_clips_under_the_same_name_are_refused(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gif(tmp_path / "others" / "a.gif", "red")
    assert train(steps=4, clips=tmp_path / "others") == 2
    assert "'jump' was begun with other settings (clips:" in capsys.readouterr().err


def counted_once() -> Callable[..., Cost]:
    """What a dry run asks for three times."""
    count = cache(COUNT)
    return lambda training, size=None, checkpointing=None: count(training, size, checkpointing)


def test_a_dry_run_tells_the_cost_and_writes_nothing(
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ActionTraining, "cost", counted_once())
    assert train("--dry-run") == 0
    said = capsys.readouterr().out
    assert "run_fast" in said or "run fast" in said
    assert "million numbers" in said
    assert "TFLOP" in said
    assert re.search(r"Memory: about \d+\.\d GiB at checkpointing none; \d+\.\d GiB are free\.", said)
    assert not (tmp_path / "runs").exists()


GIB = 2**30


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how much is free, in GiB; a pair of size 512 takes 8, less if it is smaller or checkpointed."""
    monkeypatch.setattr(cli.needs, "free_memory", lambda device: 10**12)

    def cost(training: ActionTraining, size: int | None = None, checkpointing: str | None = None) -> Cost:
        size = size or training.config.method.augment.size
        less = {"none": 1, "motion": 2, "all": 4}[checkpointing or training.config.checkpointing]
        return Cost(flops=10**9, peak_bytes=size // 64 * GIB // less)

    monkeypatch.setattr(ActionTraining, "cost", cost)
    return lambda gib: monkeypatch.setattr(cli.needs, "free_memory", lambda device: int(gib * GIB))


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("free", "remedy"),
    [
        (7.9, "give `--checkpointing motion`, which needs about 4.0 GiB"),
        (3.9, "give `--checkpointing all`, which needs about 2.0 GiB"),
        (1.9, "give `--size 384 --checkpointing all`, which needs about 1.5 GiB"),
        (1.2, "give `--size 256 --checkpointing all`, which needs about 1.0 GiB"),
        (0.5, "even `--size 256 --checkpointing all` needs about 1.0 GiB, so take fewer --frames or another"),
    ],
)
def test_too_little_memory_is_told_before_training(
    train, memory, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags, free: float, remedy: str
) -> None:
    memory(free)
    assert train(*flags, size=512) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    said = f"error: Training needs about 8.0 GiB of memory, but {free} GiB are free on cpu: {remedy}"
    assert error.startswith(said)
    assert not (tmp_path / "runs").exists()


def test_enough_memory_is_enough_and_a_run_that_goes_on_has_shown_it(train, memory) -> None:
    memory(0.6)
    assert train(size=16, steps=1) == 0
    memory(0)
    assert train(size=16, steps=2) == 0
    assert train(size=16, out="other") == 2


def test_full_memory_is_told_with_settings_that_need_less(
    train, memory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ActionTraining, "run", fill)
    assert train(size=512) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: The memory of cpu is full; about 8.0 GiB were expected to do")
    assert "give `--checkpointing motion`, which needs about 4.0 GiB." in error


def test_a_clip_that_is_damaged_is_left_out(
    train, training_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gif(tmp_path / "run_fast" / "a.gif", "orange")
    (tmp_path / "run_fast" / "b.mp4").write_bytes(b"no video")
    assert train(steps=1, clips=tmp_path / "run_fast") == 0
    assert "Skipped b.mp4: it cannot be read as a video" in capsys.readouterr().out
    action = read_action(tmp_path / "runs" / "jump" / "jump.safetensors")
    assert json.loads(action.header["flash.data"])["n_clips"] == 1
    assert len(json.loads(action.header["flash.card"])["limits"]) == 3


def test_very_many_clips_can_be_learned_from(train, training_files: Path, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for i in range(500):
        (tmp_path / "many" / f"{i}.gif").symlink_to(training_files / "run_fast" / "a.gif")
    assert train(steps=1, pool=1, frames=2, variant=1, clips=tmp_path / "many") == 0
    settings = json.loads((tmp_path / "runs" / "jump" / "settings.json").read_text())
    assert (len(settings["clips"]), len(settings["exam"]["clips"])) == (496, 4)


def test_curves_for_tensorboard_go_on(train, begun: Path) -> None:
    assert train(steps=5) == 0
    curves = EventAccumulator(str(begun / "tensorboard")).Reload()
    losses = curves.Scalars("loss")
    assert [point.step for point in losses] == [1, 2, 3, 4, 5]
    assert all(math.isfinite(point.value) for point in losses)
    assert [point.step for point in curves.Scalars("seconds_per_step")] == [2, 3, 5]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"out": "../away"}, "must be letters, digits"),
        ({"clips": "/nowhere"}, "/nowhere"),
        ({"frames": 1}, "2 frames or more"),
        ({"frames": 99}, "trained with up to"),
        ({"size": 12}, "`size` must be a multiple of 8"),
        ({"size": 8}, "`size` must be 16 pixels or more with this base, but it is 8"),
        ({"tau": 101}, "`tau` is a percentile"),
        ({"p": 2}, "`p` must lie between 0 and 1"),
        ({"variant": 1, "tau": 50}, "Without twins nothing can be aligned"),
        ({"steps": 0}, "`steps` must be 1 or more"),
        ({"lr": 0}, "`learning_rate` must lie between 0 and 1"),
        ({"pool": 0}, "`per_clip` must be 1 or more"),
        ({"seed": -1}, "--seed must lie between"),
        ({"device": "abacus"}, "'abacus' cannot be used"),
        ({"image": __file__}, "cannot be read as a picture"),
        ({"motion": __file__}, "neither a safetensors nor a PyTorch file"),
    ],
)
def test_mistakes_are_one_sentence(
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    sentence: str,
) -> None:
    assert train(**changes) == 2
    assert sentence in sentence_of(capsys.readouterr().err)
    assert not list(tmp_path.glob("runs/*/checkpoint-*"))

"""`python -m flash_modules train-ref-adapter`: from clips to a RefAdapter, from mistakes to sentences."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.backends.diffusers.cogvideox import find_base, load_vae
from flash_pack.flash_modules.backends.diffusers.cogvideox.train import encode_moments
from flash_pack.flash_modules.cli import ref_lessons
from flash_pack.flash_modules.cli import train_ref_adapter as command
from flash_pack.flash_modules.cli import transfer_memory as memory
from flash_pack.flash_modules.files.json_file import read_json
from flash_pack.flash_modules.flexiact.action_file import write_transfer_action
from flash_pack.flash_modules.flexiact.ref_adapter_file import read_ref_adapter
from flash_pack.flash_modules.flexiact.training.needs import Needs
from flash_pack.flash_modules.flexiact.training.ref_clips import (
    RefClipConfig,
    encode_clip,
    read_encoded_clip,
)
from flash_pack.flash_modules.flexiact.training.ref_training import RefTraining
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.run_folder import checkpoint_steps
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_cogvideox import LAYERS, PROMPT, WIDTH, save_base, small_action
from flash_pack.tests.backends.test_cli_stops import interrupt
from flash_pack.tests.backends.test_processes import Launch

Train = Callable[..., int]
RANK, STEPS = 4, 6
MOMENTS = (0, 2, 5, 9, 14, 20, 23)
"""Changes of names, removals and micro-batches before a sitting is killed; the next goes on from there."""
fork = multiprocessing.get_context("fork")


def _write_clip(path: Path, angle: int, frames: int = 14) -> None:
    pictures = [Image.linear_gradient("L").rotate(angle + 9 * i).resize((60, 45)) for i in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train-ref-adapter")
    save_base(folder / "base")
    (folder / "clips").mkdir()
    for name, angle in (("a", 0), ("b", 70), ("c", 140)):
        _write_clip(folder / "clips" / f"{name}.gif", angle)
    (folder / "clips" / "c.txt").write_text("a dog")
    _write_clip(folder / "clips" / "short.gif", 0, frames=5)
    (folder / "clips" / "broken.gif").write_bytes(b"GIF89a")
    Image.effect_noise((150, 100), 90).convert("RGB").save(folder / "picture.png")
    return folder


def _arguments(files: Path, runs: Path, **changes: object) -> dict[str, object]:
    return {
        "base": files / "base",
        "clips": files / "clips",
        "prompt": PROMPT,
        "windows": 2,
        "pictures": 3,
        "rank": RANK,
        "lr": 1e-3,
        "steps": STEPS,
        "save-steps": 1,
        "device": "cpu",
        "runs": runs,
        "out": "ref",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }


def _train(files: Path, runs: Path, *flags: str, **changes: object) -> int:
    few = Needs(flops=10**12, device_bytes=2**20, waiting_bytes=2**20)  # counting takes seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "step_needs", lambda *_: few)
        return run_command("train-ref-adapter", _arguments(files, runs, **changes), *flags)


@pytest.fixture
def train(files: Path, tmp_path: Path) -> Train:
    """The command with arguments that work, except for those that are given."""
    return partial(_train, files, tmp_path)


@pytest.fixture(scope="module")
def usual(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the arguments that work; what it takes is counted, too."""
    runs = tmp_path_factory.mktemp("usual")
    assert run_command("train-ref-adapter", _arguments(files, runs)) == 0
    return runs / "ref"


def _same(one: Path, other: Path) -> bool:
    """Whether two runs' results are equal bit for bit."""
    found, wanted = (load_file(path / f"{path.name}.safetensors") for path in (one, other))
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_ref_adapter_is_learned_from_the_clips_that_are_long_enough(usual: Path) -> None:
    adapter = read_ref_adapter(usual / "ref.safetensors")
    assert (adapter.num_layers, adapter.width) == (LAYERS, WIDTH)
    for low_rank in adapter.parts.values():
        assert low_rank.down_RC.shape == (RANK, WIDTH)
        assert low_rank.alpha == RANK / 2
        assert low_rank.up_CR.any()
    with safe_open(usual / "ref.safetensors", "pt") as file:
        header = file.metadata()
    assert header["flash.base"] == "CogVideoX-5b-I2V"
    assert (header["flash.kind"], header["flash.licence"]) == ("ref-adapter", "")
    assert (header["flash.steps"], header["flash.rank"]) == (str(STEPS), str(RANK))
    assert header["flash.data"].startswith('{"n_clips": 3, "sha256": ["')
    encoded = sorted(path.name for path in (usual / "encoded").iterdir())
    assert encoded == [
        *(f"clip-{number:06d}.safetensors" for number in range(3)),
        *(f"text-{number:06d}.safetensors" for number in range(3)),  # two captions, and the empty one
    ]
    one = read_encoded_clip(usual / "encoded" / encoded[0])
    assert one.mean_WFCHW.shape == (2, 3, 16, 8, 12)
    assert one.picture_mean_P1CHW.shape == (3, 1, 16, 8, 12)


def test_each_clip_has_windows_and_pictures_of_its_own(usual: Path, files: Path) -> None:
    base = find_base(files / "base")
    encode = partial(encode_moments, load_vae(base, torch.float32))
    config = RefClipConfig(frames=9, height=64, width=96, windows=2, pictures=3)
    clips = [clip for clip in find_clips([files / "clips"]).used if clip.num_frames > 9]
    for number, clip in enumerate(clips):
        wanted = vars(encode_clip(clip, config, encode, 0, number))
        found = vars(read_encoded_clip(usual / "encoded" / f"clip-{number:06d}.safetensors"))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert number == 2


def test_its_card_tells_how_it_was_learned(usual: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["card", str(usual / "ref.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "Learned from: 3 clips (SHA-256 " in said
    assert f"- steps: {STEPS}" in said


def test_transfer_takes_the_file(usual: Path, files: Path, tmp_path: Path) -> None:
    write_transfer_action(tmp_path / "crouch.safetensors", small_action())
    arguments = {
        "base": files / "base",
        "action": tmp_path / "crouch.safetensors",
        "ref-adapter": usual / "ref.safetensors",
        "image": files / "picture.png",
        "prompt": PROMPT,
        "steps": 2,
        "device": "cpu",
    }
    films = []
    for strength in (1, 60):
        out = tmp_path / f"{strength}.webp"
        assert run_command("transfer", {**arguments, "ref-strength": strength, "out": out}) == 0
        films.append(out.read_bytes())
    assert films[0] != films[1]


def test_what_is_left_out_is_said(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--dry-run") == 0
    said = capsys.readouterr().out
    assert "clips: 3 clips, 2 captions" in said
    assert "Skipped broken.gif: " in said
    assert "Skipped short.gif: it ends before 9 frames are taken, 8 to 10 a second: 1 s are enough" in said


def test_a_dry_run_says_what_is_needed(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--dry-run", accumulation=2) == 0
    said = capsys.readouterr().out
    assert "A step takes 2 TFLOP and 0.0 GiB of memory, and 0.0 GiB of the computer's" in said
    assert not (tmp_path / "ref").exists()


@pytest.mark.parametrize("encoded", [(), ("clip-000000", "clip-000002", "text-000001")])
def test_the_disk_is_asked_for_what_is_not_encoded_yet(
    encoded: tuple[str, ...],
    train: Train,
    usual: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "ref" / "encoded").mkdir(parents=True)
    for name in encoded:
        shutil.copy(usual / "encoded" / f"{name}.safetensors", tmp_path / "ref" / "encoded")
    missing = [path for path in (usual / "encoded").iterdir() if path.stem not in encoded]
    needed = sum(tensor.nbytes for path in missing for tensor in load_file(path).values())
    asked = []

    def free(bytes_free: int) -> Callable[[Path], SimpleNamespace]:
        return lambda path: asked.append(path) or SimpleNamespace(free=bytes_free)

    monkeypatch.setattr(ref_lessons, "gib", lambda num_bytes: f"{num_bytes} bytes")
    monkeypatch.setattr(shutil, "disk_usage", free(needed))
    assert train("--dry-run") == 0
    said = f"What is encoded takes {needed} bytes of the disk, and {needed} bytes are free on it."
    assert said in capsys.readouterr().out
    monkeypatch.setattr(shutil, "disk_usage", free(needed - 1))
    monkeypatch.delattr(command, "load_transformer")
    for flags in ((), ("--dry-run",)):
        assert train(*flags) == 2
        assert sentence_of(capsys.readouterr().err) == (
            f"error: Encoding takes {needed} bytes of the disk, and {needed - 1} bytes are free for "
            f"{tmp_path}/ref/encoded: make room, give --runs on another disk, or fewer clips, --windows or "
            "--pictures."
        )
    assert train(out="not-yet") == 2
    assert asked == [*[tmp_path / "ref" / "encoded"] * 3, tmp_path]


@pytest.mark.parametrize(
    "changes", [{"checkpointing": "none"}, {"offload": "blocks"}, {"checkpointing": "cpu"}]
)
def test_what_saves_memory_changes_nothing(
    changes: dict[str, Any], train: Train, usual: Path, tmp_path: Path
) -> None:
    assert train(**changes) == 0
    found, wanted = (load_file(path / "ref.safetensors") for path in (tmp_path / "ref", usual))
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"lr": 2e-3}, {"windows": 1}, {"pictures": 1}, {"prompt": "a"}]
)
def test_every_setting_counts(changes: dict[str, Any], train: Train, usual: Path, tmp_path: Path) -> None:
    assert train(**changes) == 0
    assert not _same(tmp_path / "ref", usual)


def test_a_run_goes_on_where_it_was_without_encoding_again(
    train: Train, usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert train(steps=2) == 0
    monkeypatch.delattr(ref_lessons, "load_vae")
    monkeypatch.delattr(ref_lessons, "prompt_encoder")
    assert train() == 0
    assert "Going on from step 2." in capsys.readouterr().out
    assert _same(tmp_path / "ref", usual)


def test_a_run_of_other_clips_is_not_gone_on_with(
    train: Train, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=1) == 0
    shutil.copytree(files / "clips", tmp_path / "clips")
    _write_clip(tmp_path / "clips" / "b.gif", 33)
    assert train(clips=tmp_path / "clips") == 2
    assert "clips" in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 8}, "rank: 4 then, 8 now"),
        ({"accumulation": 2}, "parts_of_a_step: 1 then, 2 now"),
        ({"dtype": "bf16"}, 'dtype: "float32" then, "bfloat16" now'),
    ],
)
def test_a_run_goes_on_only_with_what_it_was_begun_with(
    changes: dict[str, Any], told: str, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=1) == 0
    assert train(**changes) == 2
    assert told in sentence_of(capsys.readouterr().err)


def test_a_run_that_was_stopped_writes_how_far_it_came(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, RefTraining, "loss", call=2, times=1)
    assert train() == 0
    header = read_ref_adapter(tmp_path / "ref" / "ref.safetensors").header
    assert header["flash.steps"] == "2"


@pytest.mark.parametrize("prompt", [None, "a"])
def test_a_picture_is_animated_on_the_way_and_learning_goes_on_as_without(
    prompt: str | None,
    train: Train,
    files: Path,
    usual: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flash_pack.flash_modules.flexiact.sampling.TransferConfig.steps", 2)
    assert train(image=files / "picture.png", sample_prompt=prompt, sample_steps=4) == 0
    assert [path.name for path in tmp_path.glob("ref/sample-*")] == ["sample-000004.mp4"]
    assert _same(tmp_path / "ref", usual)


def _learn_until_the_kill(files: Path, runs: Path, moment: int) -> None:
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

    for module, name in ((os, "replace"), (shutil, "rmtree"), (RefTraining, "loss")):
        setattr(module, name, dying(getattr(module, name)))
    _train(files, runs)


def test_a_run_that_was_killed_again_and_again_is_one_that_never_was(
    files: Path, usual: Path, tmp_path: Path
) -> None:
    reached = []
    for moment in MOMENTS:
        child = fork.Process(target=_learn_until_the_kill, args=(files, tmp_path, moment))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, moment
        run = tmp_path / "ref"
        reached.append(max(checkpoint_steps(run), default=0) if run.is_dir() else 0)
    assert reached == sorted(reached)
    assert 2 <= reached[-1] < STEPS
    assert _train(files, tmp_path) == 0
    assert _same(tmp_path / "ref", usual)
    tables = [(path / "loss.csv").read_text().splitlines() for path in (tmp_path / "ref", usual)]
    losses = [[(row.split(",")[0], row.split(",")[2]) for row in table] for table in tables]
    assert losses[0] == losses[1]
    assert not [*tmp_path.rglob(".flash-*"), *tmp_path.rglob("*.new")]


def test_two_processes_learn_what_one_learns_with_accumulation_2(files: Path, tmp_path: Path) -> None:
    """Bit for bit: halves are exact, and two numbers add up to the same in either order."""
    words = []
    for name, value in _arguments(files, tmp_path, steps=3, out="two").items():
        words += [f"--{name}", str(value)]
    with Launch(words, tmp_path / "two.log", command="train-ref-adapter") as launch:
        launch.finish()
    assert _train(files, tmp_path, out="one", steps=3, accumulation=2) == 0
    (one, two) = (load_file(tmp_path / name / f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    settings = [read_json(tmp_path / name / "settings.json") for name in ("one", "two")]
    assert settings[0] == settings[1]  # so that one process goes on with what two have begun
    encoded = [sorted((tmp_path / name / "encoded").iterdir()) for name in ("one", "two")]
    assert [path.name for path in encoded[0]] == [path.name for path in encoded[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*encoded, strict=True))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sample_steps": 0}, "--sample-steps must be 1 or more, but it is 0"),
        ({"sample_prompt": "a"}, "--sample-prompt is for samples: give their --image, too"),
        ({"image": "none.png"}, "none.png"),
        ({"clips": "nowhere"}, "There is no folder nowhere: give a folder with clips in it"),
        ({"clips": "empty"}, "empty holds no clips"),
        ({"clips": "brief"}, "None of the 1 clips is long enough: 9 frames are taken, 8 to 10 a second"),
        ({"base": "nowhere"}, "nowhere is not a model in diffusers' layout"),
        ({"prompt": "dogs " * 6}, "The prompt has 13 tokens, and CogVideoX-5b-I2V reads 10: shorten it"),
        ({"prompt": " "}, "A prompt is empty"),
        ({"rank": 0}, "`rank` must be 1 or more"),
        ({"windows": 0}, "`windows` must be 1 or more"),
        ({"seed": -1}, "--seed must lie between"),
        ({"lr": 2}, "`learning_rate` must lie between 0 and 1"),
        ({"out": "a/b"}, "The run's name 'a/b' must be letters"),
        ({"offload": "blocks", "checkpointing": "none"}, "Blocks whose weights wait must run again"),
    ],
)
def test_mistakes_are_sentences_before_a_model_is_read(
    changes: dict[str, Any],
    sentence: str,
    files: Path,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(command, "load_transformer")
    (tmp_path / "empty").mkdir()
    (tmp_path / "brief").mkdir()
    _write_clip(tmp_path / "brief" / "short.gif", 0, frames=5)
    assert train(**changes) == 2
    assert sentence in sentence_of(capsys.readouterr().err)
    assert not (tmp_path / "ref").exists()


def test_too_little_memory_is_told_with_what_fits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    assert train() == 2
    said = sentence_of(capsys.readouterr().err)
    assert "Learning needs about 0.0 GiB, and 0.0 GiB are free on cpu: even `--checkpointing cpu" in said
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20)
    assert train() == 2
    assert "Encoding a clip needs about 0.0 GiB" in sentence_of(capsys.readouterr().err)
    assert not (tmp_path / "ref").exists()


def test_memory_is_looked_at_again_by_a_run_that_goes_on(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But nothing is encoded then."""
    assert train(steps=1) == 0
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    assert train(steps=2) == 2
    assert "Learning needs about" in sentence_of(capsys.readouterr().err)
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20)
    assert train(steps=2) == 0

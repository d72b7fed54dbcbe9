"""`python -m flash_modules train-transfer`: from a clip to an action, and from mistakes to sentences."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flash_pack.flash_modules.cli import train_transfer as command
from flash_pack.flash_modules.cli import transfer_lesson, transfer_samples
from flash_pack.flash_modules.cli import transfer_memory as memory
from flash_pack.flash_modules.flexiact.action_file import read_transfer_action
from flash_pack.flash_modules.flexiact.ref_adapter_file import write_ref_adapter
from flash_pack.flash_modules.flexiact.training.lesson import read_lesson
from flash_pack.flash_modules.flexiact.training.needs import Needs
from flash_pack.flash_modules.flexiact.training.saving import Saving
from flash_pack.flash_modules.flexiact.training.views import ViewConfig
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_cogvideox import LAYERS, PROMPT, WIDTH, save_base, small_adapter
from flash_pack.tests.core.small_clips import write_video

Train = Callable[..., int]
TOKENS = 5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train-transfer")
    save_base(folder / "base")
    frames = [Image.linear_gradient("L").rotate(9 * i).resize((120, 90)) for i in range(12)]
    frames[0].save(folder / "turn.gif", save_all=True, append_images=frames[1:], duration=100)
    Image.effect_noise((150, 100), 90).convert("RGB").save(folder / "picture.png")
    write_ref_adapter(folder / "adapter.safetensors", small_adapter())
    return folder


def _train(files: Path, runs: Path, *flags: str, **changes: object) -> int:
    arguments = {
        "base": files / "base",
        "clip": files / "turn.gif",
        "prompt": PROMPT,
        "tokens": TOKENS,
        "steps": 3,
        "device": "cpu",
        "runs": runs,
        "out": "turn",
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    with pytest.MonkeyPatch.context() as patch:  # twelve views take seconds
        patch.setattr(transfer_lesson, "ViewConfig", partial(ViewConfig, columns=1, rows=2))
        return run_command("train-transfer", arguments, *flags)


@pytest.fixture
def train(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """The command with arguments that work, except for those that are given."""
    few = Needs(flops=10**12, device_bytes=2**20, waiting_bytes=2**20)  # counting takes seconds
    monkeypatch.setattr(command, "step_needs", lambda *_: few)
    return partial(_train, files, tmp_path)


@pytest.fixture(scope="module")
def usual(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with the arguments that work; what it takes is counted, too."""
    runs = tmp_path_factory.mktemp("usual")
    assert _train(files, runs) == 0
    return runs / "turn"


def test_an_action_is_learned(usual: Path) -> None:
    action = read_transfer_action(usual / "turn.safetensors")
    assert action.tokens_LMC.shape == (LAYERS, TOKENS, WIDTH)
    assert action.tokens_LMC.abs().min() > 0
    assert (action.steps, action.prompt, len(action.clip_sha256)) == (3, PROMPT, 64)
    assert len(read_lesson(usual / "lesson.safetensors").views) == 2


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (("--checkpointing", "none"), {}),
        (("--checkpointing", "cpu"), {}),
        (("--offload", "blocks"), {}),
    ],
)
def test_what_saves_memory_changes_nothing(
    flags: tuple[str, ...], changes: dict[str, Any], train: Train, usual: Path, tmp_path: Path
) -> None:
    assert train(*flags, **changes) == 0
    found, wanted = (load_file(path / "turn.safetensors") for path in (tmp_path / "turn", usual))
    for name, tokens in wanted.items():
        torch.testing.assert_close(found[name], tokens, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"lr": 1e-3}, {"prompt": "a dog"}, {"start": 0.3}, {"end": 0.8}]
)
def test_every_setting_counts(changes: dict[str, Any], train: Train, usual: Path, tmp_path: Path) -> None:
    assert train(**changes) == 0
    found, wanted = (load_file(path / "turn.safetensors") for path in (tmp_path / "turn", usual))
    assert not all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_run_goes_on_where_it_was(
    train: Train,
    usual: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert train(steps=1, save_steps=1) == 0
    monkeypatch.delattr(transfer_lesson, "load_vae")  # the lesson is there
    assert train() == 0
    assert "Going on from step 1." in capsys.readouterr().out
    found, wanted = (load_file(path / "turn.safetensors") for path in (tmp_path / "turn", usual))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_run_of_another_clip_is_not_gone_on_with(
    train: Train, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(steps=1) == 0
    frames = [Image.radial_gradient("L").rotate(9 * i).resize((120, 90)) for i in range(12)]
    frames[0].save(tmp_path / "other.gif", save_all=True, append_images=frames[1:], duration=100)
    assert train(clip=tmp_path / "other.gif") == 2
    assert "clip" in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize("offload", ["none", "blocks"])
def test_a_picture_performs_on_the_way_and_learning_goes_on_as_without(
    offload: str, train: Train, files: Path, usual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flash_pack.flash_modules.flexiact.sampling.TransferConfig.steps", 2)
    sample = {"image": files / "picture.png", "ref_adapter": files / "adapter.safetensors"}
    assert train(**sample, sample_steps=2, offload=offload) == 0
    assert [path.name for path in tmp_path.glob("turn/sample-*")] == ["sample-000002.mp4"]
    found, wanted = (load_file(path / "turn.safetensors") for path in (tmp_path / "turn", usual))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_dry_run_says_what_is_needed(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--dry-run") == 0
    said = capsys.readouterr()
    assert "A step takes 1 TFLOP and 0.0 GiB of memory, and 0.0 GiB of the computer's" in said.out + said.err
    assert "turn.gif has" not in said.out + said.err  # 12 frames are enough for 9
    assert not (tmp_path / "turn").exists()


def test_short_clips_are_spread_and_it_is_said(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--dry-run", end=0.5) == 0
    said = capsys.readouterr()
    assert "turn.gif has 6 frames there, and some are shown twice to make 9." in said.out + said.err


def test_an_action_is_learned_from_the_released_tables(
    train: Train, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crop.csv").write_text(
        f"{files / 'turn.gif'},0,9,8,0,a dog\n" * 2 + "turn.gif,3,12,8,0,a cat"
    )
    (tmp_path / "val_image.csv").write_text("path,caption\npicture.png,a dog jumps\npicture.png,a\n")
    monkeypatch.setattr("flash_pack.flash_modules.flexiact.sampling.TransferConfig.steps", 2)
    monkeypatch.chdir(files)
    encoded: list[list[str]] = []
    encode = transfer_samples.encode_prompts
    monkeypatch.setattr(
        transfer_samples,
        "encode_prompts",
        lambda files, texts, *more: encoded.append(texts) or encode(files, texts, *more),
    )
    tables = {"crop_csv": tmp_path / "crop.csv", "val_csv": tmp_path / "val_image.csv"}
    assert train(clip=None, prompt=None, steps=2, sample_steps=1, **tables) == 0
    assert encoded == [["a dog jumps"], ["a"]]  # once in two rounds
    lesson = read_lesson(tmp_path / "turn" / "lesson.safetensors")
    assert (lesson.caption, lesson.caption_of, len(lesson.text_embeds)) == ("a dog", (0, 0, 1), 2)
    assert read_transfer_action(tmp_path / "turn" / "turn.safetensors").prompt == "a dog"
    wanted = [f"sample-{row:02d}-picture-{step:06d}.mp4" for row in (1, 2) for step in (1, 2)]
    assert sorted(path.name for path in tmp_path.glob("turn/sample-*")) == wanted


def test_a_sheet_is_drawn_and_nothing_is_learned(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(command, "load_transformer")
    assert train(sheet=tmp_path / "sheet.png", end=0.5) == 0
    said = capsys.readouterr()
    assert "turn.gif: 120x90, 12 frames, 1.2 s -> 9 frames, from 0 to 5, 0.5 s: 'a dog jumps'" in said.out
    assert "some are shown twice" in said.out
    assert Image.open(tmp_path / "sheet.png").height == 8 + 2 * 122
    assert not (tmp_path / "turn").exists()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"patch_size_t": 2}, "CogVideoX 1.5"),
        ({"in_channels": 16}, "CogVideoX-5b, which makes videos from text and takes no picture"),
        ({"in_channels": 48}, "a CogVideoX with 48 input channels, as for inpainting"),
        ({"_class_name": "UNet2DConditionModel"}, "a model with a UNet2DConditionModel"),
    ],
)
def test_a_base_of_another_kind_is_named(
    changes: dict[str, Any], kind: str, files: Path, train: Train, tmp_path: Path, capsys: Any
) -> None:
    other = tmp_path / "other"
    shutil.copytree(files / "base", other)
    path = other / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert train(base=other) == 2
    said = sentence_of(capsys.readouterr().err)
    assert f"other is {kind}" in said
    assert "FlexiAct works on CogVideoX-5b-I2V: give that one's folder." in said


def test_a_longer_clip_is_spread_and_nothing_need_be_said(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "long.mp4", 41)
    assert train(clip=clip, sheet=tmp_path / "sheet.png") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("long.mp4: 96x64, 41 frames, 1.6 s -> 9 frames, from 0 to 40, 1.6 s")
    assert len(said) == 2


def test_files_without_a_picture_are_sentences(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 44100).numpy(), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "folder").mkdir()
    write_video(tmp_path / "still.mp4", 1)
    for name in ("sound.mp4", "text.mp4", "folder", "still.mp4"):
        assert train(clip=tmp_path / name) == 2
        said = sentence_of(capsys.readouterr().err)
        assert f"{name} cannot be used as a clip: " in said
        assert said.endswith(".")


def test_too_long_a_prompt_is_told_before_a_model_is_read(
    train: Train, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(command, "load_transformer")
    assert train(prompt="dogs " * 6) == 2
    assert "The prompt has 13 tokens" in sentence_of(capsys.readouterr().err)
    assert train(image=files / "picture.png", sample_prompt="dogs " * 6) == 2
    assert "The prompt has 13 tokens" in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": 0}, "--tokens must be 1 or more, but it is 0"),
        ({"sample_steps": 0}, "--sample-steps must be 1 or more"),
        ({"ref_adapter": "adapter.safetensors"}, "are for samples: give their --image, too"),
        ({"clip": "picture.png"}, "picture.png cannot be used as a clip"),
        ({"clip": "none.mp4"}, "none.mp4 cannot be used as a clip"),
        ({"start": 9}, "turn.gif lasts 1.20 s, and the cut goes from 9 to"),
        ({"base": "nowhere"}, "nowhere is not a model in diffusers' layout"),
        ({"clip": None}, "give --clip with its --prompt, or --crop-csv"),
        ({"prompt": None}, "give --clip with its --prompt, or --crop-csv"),
        ({"crop_csv": "crop.csv"}, "--crop-csv names videos, frames and captions: leave out --clip"),
        ({"val_csv": "a.csv", "image": "picture.png"}, "--val-csv names pictures and prompts: leave out"),
        ({"val_csv": "none.csv"}, "none.csv cannot be read"),
        ({"sheet": "sheet.jpg"}, "sheet.jpg is no name for the picture: let it end in .png"),
        ({"seed": -1}, "--seed must lie between"),
        ({"lr": 2}, "`learning_rate` must lie between 0 and 1"),
    ],
)
def test_mistakes_are_sentences(
    changes: dict[str, Any],
    sentence: str,
    files: Path,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    assert train(**changes) == 2
    assert sentence in sentence_of(capsys.readouterr().err)


def test_too_little_memory_is_told_before_anything_is_learned(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    assert train() == 2
    said = sentence_of(capsys.readouterr().err)
    least = "--checkpointing cpu --offload blocks"
    assert f"0.0 GiB are free on cpu: even `{least}`, which needs about 0.0 GiB, does not fit" in said
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20 - 1)
    few = Needs(flops=1, device_bytes=2**19, waiting_bytes=0)
    monkeypatch.setattr(memory, "nearest_that_fits", lambda *_: (Saving(offload=True), few))
    assert train() == 2
    assert "give `--checkpointing blocks --offload blocks`, which" in sentence_of(capsys.readouterr().err)
    assert not (tmp_path / "turn").exists()


def test_too_little_memory_to_encode_the_clip_is_told_before_anything_is_learned(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step may take less, with what saves memory."""
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20)
    assert train() == 2
    said = sentence_of(capsys.readouterr().err)
    assert "Encoding a clip needs about 0.0 GiB, once, and 0.0 GiB are free on cpu: close what else" in said
    assert not (tmp_path / "turn").exists()


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

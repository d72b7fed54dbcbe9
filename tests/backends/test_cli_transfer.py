"""`python -m flash_modules transfer`, from files to a video and from mistakes to sentences."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flash_pack.flash_modules.backends.diffusers.cogvideox import (
    add_transfer,
    decode_video,
    encode_picture,
    encode_prompt,
    find_base,
    guided_velocity,
    load_text_encoder,
    load_transformer,
    load_vae,
    read_tokenizer,
)
from flash_pack.flash_modules.cli import transfer as command
from flash_pack.flash_modules.files.video_files import fit_picture, read_picture, write_video
from flash_pack.flash_modules.flexiact.action_file import read_transfer_action, write_transfer_action
from flash_pack.flash_modules.flexiact.performance import Performance
from flash_pack.flash_modules.flexiact.ref_adapter_file import read_ref_adapter, write_ref_adapter
from flash_pack.flash_modules.flexiact.sampling import draw_start, draw_step_noise, sample_latents
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_cogvideox import (
    LAYERS,
    PROMPT,
    TOKENS,
    WIDTH,
    save_base,
    small_action,
    small_adapter,
)

Transfer = Callable[..., int]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    save_base(folder / "base")
    write_transfer_action(folder / "crouch.safetensors", small_action())
    write_transfer_action(folder / "jump.safetensors", small_action(8, "jump"))
    write_ref_adapter(folder / "adapter.safetensors", small_adapter())
    Image.effect_noise((150, 100), 90).convert("RGB").save(folder / "picture.png")
    return folder


def _transfer(files: Path, usual_out: Path, *flags: str, **changes: object) -> int:
    """Runs the command with arguments that work, except for those that are given; None leaves one out."""
    arguments = {
        "base": files / "base",
        "action": files / "crouch.safetensors",
        "ref-adapter": files / "adapter.safetensors",
        "image": files / "picture.png",
        "prompt": PROMPT,
        "seed": 3,
        "steps": 2,
        "device": "cpu",
        "out": usual_out,
        **{name.replace("_", "-"): value for name, value in changes.items()},
    }
    return run_command("transfer", arguments, "--no-metadata", *flags)


@pytest.fixture
def transfer(files: Path, tmp_path: Path) -> Transfer:
    """The command, which writes `out` into the test's own folder."""
    return partial(_transfer, files, tmp_path / "out")


@pytest.fixture(scope="module")
def usual(files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The pictures of a run with the arguments that work."""
    out = tmp_path_factory.mktemp("usual") / "out"
    assert _transfer(files, out) == 0
    return _pictures(out)


def _pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_the_command_does_what_its_parts_do(files: Path, usual: list[bytes], tmp_path: Path) -> None:
    base = find_base(files / "base")
    encoder, vae, transformer = (
        load(base, torch.float32) for load in (load_text_encoder, load_vae, load_transformer)
    )
    tokenizer = read_tokenizer(base.tokenizer, 40)
    prompt, negative = (encode_prompt(encoder, tokenizer, text, 10) for text in (PROMPT, ""))
    image_1HWC = fit_picture(read_picture(files / "picture.png"), (96, 64))
    performances = [Performance(action=read_transfer_action(files / "crouch.safetensors"))]
    add_transfer(transformer, performances, read_ref_adapter(files / "adapter.safetensors"), 0.7)
    predict = guided_velocity(transformer, encode_picture(vae, image_1HWC), prompt, negative, 6.0)
    shape = base.shape.latents
    latents_FCHW = sample_latents(predict, draw_start(*shape, seed=3), draw_step_noise(*shape, seed=3), 2)
    write_video(tmp_path / "wanted", decode_video(vae, latents_FCHW), 8)
    assert usual == _pictures(tmp_path / "wanted")
    assert len(usual) == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"prompt": "a dog"},
        {"negative": "a dog"},
        {"cfg": 1},
        {"steps": 3},
        {"action": None},
        {"strength": 0},
        {"strength": 0.5},
        {"ref_strength": 1},
        {"ref_adapter": None},
        {"early_boost": 0},
    ],
)
def test_every_setting_counts(
    changes: dict[str, Any], files: Path, transfer: Transfer, usual: list[bytes], tmp_path: Path
) -> None:
    if changes == {"action": None}:
        changes = {"action": [files / "crouch.safetensors", files / "jump.safetensors"]}
    assert transfer(**changes) == 0
    assert _pictures(tmp_path / "out") != usual


def test_settings_that_say_the_same_give_the_same(transfer: Transfer, tmp_path: Path) -> None:
    assert transfer("--released") == 0
    assert transfer(early_boost=0, out=tmp_path / "boost-0") == 0
    assert transfer("--released", offload="blocks", out=tmp_path / "blocks") == 0
    assert transfer("--released", "--trim-first-frame", out=tmp_path / "trimmed") == 0
    wanted = _pictures(tmp_path / "out")
    assert _pictures(tmp_path / "boost-0") == _pictures(tmp_path / "blocks") == wanted
    assert _pictures(tmp_path / "trimmed") == wanted[1:]


def test_boost_limits_count(transfer: Transfer, usual: list[bytes], tmp_path: Path) -> None:
    """The steps are at 999 and 499."""
    assert transfer("--boost-limits", "1000", "999", out=tmp_path / "never") == 0
    assert transfer("--released") == 0
    assert _pictures(tmp_path / "never") == _pictures(tmp_path / "out") != usual


def test_what_is_done_is_said(
    files: Path, transfer: Transfer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert transfer(out=tmp_path / "out.mp4") == 0
    said = capsys.readouterr().err
    assert "The picture is 150 x 100; its centre was taken and resized to 96 x 64." in said
    assert f"crouch: {TOKENS} tokens of width {WIDTH} for {LAYERS} layers of CogVideoX-5b-I2V" in said
    assert f"adapter: rank 4, width {WIDTH}, for {LAYERS} layers" in said
    assert "Performing: 100%" in said
    assert f"Wrote {tmp_path / 'out.mp4'}" in said


def test_a_video_says_what_it_was_made_from(files: Path, tmp_path: Path) -> None:
    arguments = {
        "base": files / "base",
        "action": files / "crouch.safetensors",
        "image": files / "picture.png",
        "prompt": PROMPT,
        "steps": 1,
        "device": "cpu",
        "out": tmp_path / "out",
    }
    assert run_command("transfer", arguments) == 0
    said = Image.open(tmp_path / "out" / "00000.png").info["XML:com.adobe.xmp"]
    assert "action crouch.safetensors" in said
    assert "picture picture.png" in said


@pytest.mark.parametrize(
    ("flags", "changes", "sentence"),
    [
        ((), {"prompt": "dogs " * 6}, "The prompt has 13 tokens, and CogVideoX-5b-I2V reads 10: shorten it"),
        ((), {"steps": 0}, "`steps` must lie between 1 and 1000"),
        ((), {"cfg": "nan"}, "`cfg` must be a number"),
        ((), {"seed": 2**64 - 1}, "--seed must lie between 0 and 2^64 - 2"),
        ((), {"fps": 0}, "--fps must be 1 or more"),
        ((), {"strength": -1}, "The strength of the action 'crouch' is -1.0"),
        ((), {"ref_strength": "inf"}, "--ref-strength must be a number"),
        ((), {"ref_strength": 0.5, "ref_adapter": None}, "--ref-strength says how much of a --ref-adapter"),
        (("--released",), {"early_boost": 0.5}, "--released has no early boost"),
        (("--boost-limits", "700", "800"), {}, "is full from timestep 700 up and ends at 800"),
        ((), {"image": "none.png"}, "none.png cannot be read as a picture"),
        ((), {"out": "out.avi"}, "out.avi is no video file that can be written"),
        ((), {"base": "nowhere"}, "nowhere is not a model in diffusers' layout"),
        ((), {"action": "adapter.safetensors"}, "adapter.safetensors is a RefAdapter or a LoRA"),
        ((), {"ref_adapter": "crouch.safetensors"}, "crouch.safetensors is not a RefAdapter"),
        ((), {"action": "none.pt"}, "There is no file none.pt"),
    ],
)
def test_mistakes_are_sentences(
    flags: tuple[str, ...],
    changes: dict[str, Any],
    sentence: str,
    files: Path,
    transfer: Transfer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    assert transfer(*flags, **changes) == 2
    assert sentence in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch_size_t": 2}, "is CogVideoX 1.5, which sees time in other steps"),
        ({"ofs_embed_dim": 512}, "is CogVideoX 1.5"),
        (
            {"in_channels": 16, "use_rotary_positional_embeddings": False},
            "is CogVideoX-2b, which makes videos from text and takes no picture",
        ),
        ({"in_channels": 16}, "is CogVideoX-5b, which makes videos from text"),
        ({"in_channels": 48}, "is a CogVideoX with 48 input channels, as for inpainting"),
        ({"use_learned_positional_embeddings": False}, "without learned and rotary positions together"),
        ({"_class_name": "WanTransformer3DModel"}, "is a model with a WanTransformer3DModel"),
        ({"num_layers": 2}, "do not fit its config.json, which knows nothing of transformer_blocks.2"),
        ({"num_layers": 4}, "lack transformer_blocks.3"),
        ({"num_layers": 10**6}, "`num_layers` is 1000000, as in no model"),
        ({"sample_frames": "many"}, "config.json is damaged: download it again"),
        ({"sample_width": 0}, "config.json is damaged: download it again (`sample_width` is 0)"),
        ({"sample_height": 10**9}, "`sample_height` is 1000000000"),
    ],
)
def test_other_bases_are_refused(
    changes: dict[str, Any],
    sentence: str,
    files: Path,
    transfer: Transfer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = shutil.copytree(files / "base", tmp_path / "base")
    path = base / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert transfer(base=base) == 2
    assert sentence in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("transformer/diffusion_pytorch_model-00002-of-*", "transformer lack "),
        ("vae/diffusion_pytorch_model.safetensors", "vae cannot be read"),
        ("text_encoder/model.safetensors", "text_encoder cannot be read"),
        ("tokenizer/spiece.model", "There is no tokenizer in"),
        ("vae/config.json", "there is no config.json in vae"),
    ],
)
def test_a_missing_part_is_named(
    part: str,
    sentence: str,
    files: Path,
    transfer: Transfer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = shutil.copytree(files / "base", tmp_path / "base")
    (path,) = base.glob(part)
    path.unlink()
    assert transfer(base=base) == 2
    assert sentence in sentence_of(capsys.readouterr().err)


def test_a_damaged_tokenizer_is_refused(
    files: Path, transfer: Transfer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(files / "base", tmp_path / "base")
    (base / "tokenizer" / "spiece.model").write_bytes(b"nothing")
    assert transfer(base=base) == 2
    assert "spiece.model cannot be read: download it again" in sentence_of(capsys.readouterr().err)


def test_full_memory_is_a_sentence(
    transfer: Transfer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(command, "load_transformer", fill)
    assert transfer() == 2
    assert "the GPU's memory is full: use --offload blocks" in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("choice", "needed", "device", "moves"),
    [
        ("auto", 11, "meta", True),
        ("auto", 10, "meta", False),
        ("auto", 11, "cpu", False),
        ("blocks", 0, "cpu", True),
        ("none", 11, "meta", False),
    ],
)
def test_blocks_wait_on_the_cpu_where_memory_is_short(
    choice: str, needed: int, device: str, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`meta` stands in for a GPU."""
    monkeypatch.setattr(command, "free_memory", lambda device: 10)
    assert command.must_offload(choice, needed, torch.device(device)) == moves

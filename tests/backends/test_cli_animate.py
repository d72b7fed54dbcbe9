"""`python -m flash_modules animate`, from files to a video and from mistakes to sentences."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from PIL import Image, ImageSequence

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.animatediff.noise_schedule import PREDICTIONS, Prediction
from flash_pack.flash_modules.backends.diffusers.sd15 import (
    add_action,
    decode_frames,
    encode_picture,
    encode_prompt,
    find_base,
    load_base,
)
from flash_pack.flash_modules.backends.diffusers.sd15.detail import detail_channels
from flash_pack.flash_modules.files.video_files import fit_picture, write_video
from flash_pack.flash_modules.flash.action_file import Action, Source, write_action
from flash_pack.flash_modules.flash.adain import AdaINConfig
from flash_pack.flash_modules.flash.decoder_file import SIGNATURE, DetailWeights, write_detail_decoder
from flash_pack.flash_modules.flash.detail_decoder import DetailDecoder, DetailDecoderConfig
from flash_pack.flash_modules.flash.sampling import SamplerConfig, sample_video
from flash_pack.tests.backends.command_line import run_command, sentence_of
from flash_pack.tests.backends.small_models import small_motion, small_vae


@pytest.fixture(scope="module")
def files(training_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a run needs."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("base", "motion.safetensors", "picture.png"):
        (folder / name).symlink_to(training_files / name)
    motion = small_motion(layers=1)
    action = Action(
        name="jump",
        kind="compact",
        motion={name: tensor * 1.1 for name, tensor in motion.tensors.items() if ".to_q." in name},
        kv_diffs={},
        base=Source(name="small", sha256=""),
        motion_module=Source(name="small_motion", sha256=motion.sha256, version="v3"),
        frames=16,
    )
    write_action(folder / "compact.safetensors", action, motion.config)
    whole = replace(action, kind="standalone", motion=motion.tensors)
    write_action(folder / "standalone.safetensors", whole, motion.config)
    write_decoder(folder / "details.safetensors", small_vae(layers=1))
    write_decoder(folder / "other_vae.safetensors", small_vae(seed=9, layers=1))
    return folder


def write_decoder(path: Path, vae: AutoencoderKL) -> None:
    """A detail decoder that adds something, for this VAE."""
    config = DetailDecoderConfig(channels=detail_channels(vae), width=8)
    decoder = DetailDecoder(config)
    for weight in decoder.parameters():
        weight.data = 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    signature = {name: vae.state_dict()[name] for name in SIGNATURE}
    weights = DetailWeights(
        name=path.stem, config=config, tensors=decoder.state_dict(), signature=signature, vae_name="small VAE"
    )
    write_detail_decoder(path, weights)


@pytest.fixture
def animate(files: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command with arguments that work, except for those that are given; None leaves one out."""

    def run(*flags: str, **changes: object) -> int:
        arguments = {
            "base": files / "base",
            "motion": files / "motion.safetensors",
            "image": files / "picture.png",
            "prompt": "a girl runs",
            "frames": 3,
            "steps": 1,
            "seed": 7,
            "size": "32x16",
            "device": "cpu",
            "out": tmp_path / "video.gif",
            **changes,
        }
        return run_command("animate", arguments, *flags)

    return run


def num_frames(path: Path) -> int:
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    with Image.open(path) as file:
        return file.n_frames


@pytest.mark.parametrize("name", ["video.mp4", "video.webp", "video.gif"])
def test_video_has_the_asked_length_and_size(animate: Callable[..., int], tmp_path: Path, name: str) -> None:
    assert animate(out=tmp_path / name) == 0
    assert num_frames(tmp_path / name) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_command_equals_its_functions_one_by_one(
    animate: Callable[..., int], files: Path, tmp_path: Path, prediction: Prediction
) -> None:
    folder = shutil.copytree(files / "base", tmp_path / "base")
    DDIMScheduler(prediction_type=prediction).save_pretrained(folder / "scheduler")
    assert animate("--no-metadata", base=folder, steps=2, negative="blurry", cfg=3.0, adain=0.5) == 0
    base = load_base(find_base(folder))
    picture = Image.open(files / "picture.png")
    model = add_action(base.unet, read_motion(files / "motion.safetensors"), None)
    latents = sample_video(
        model.predict,
        encode_picture(base.vae, fit_picture(picture, (32, 16))),
        encode_prompt(base, "a girl runs"),
        encode_prompt(base, "blurry"),
        prediction=prediction,
        seed=7,
        config=SamplerConfig(num_frames=3, steps=2, cfg=3.0),
        style=AdaINConfig(strength=0.5),
    )
    write_video(tmp_path / "expected.gif", decode_frames(base.vae, latents), fps=8)
    assert (tmp_path / "video.gif").read_bytes() == (tmp_path / "expected.gif").read_bytes()


def test_the_video_says_that_it_is_generated_unless_that_is_not_wanted(
    animate: Callable[..., int], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert animate(out=tmp_path / "a.gif") == 0
    with Image.open(tmp_path / "a.gif") as video:
        comment = video.info["comment"].decode()
    digest = hashlib.sha256((files / "picture.png").read_bytes()).hexdigest()
    assert f"picture picture.png (SHA-256 {digest})" in comment
    assert "motion motion.safetensors (SHA-256 " in comment
    assert "trainedAlgorithmicMedia" in comment
    assert str(files) not in comment
    capsys.readouterr()
    assert animate("--no-metadata", out=tmp_path / "b.gif") == 0
    assert "The file will not say that the video is generated (--no-metadata)." in capsys.readouterr().err
    with Image.open(tmp_path / "b.gif") as video:
        assert "comment" not in video.info


def test_action_and_its_strength_change_the_video(
    animate: Callable[..., int], files: Path, tmp_path: Path
) -> None:
    videos = []
    for strength in (0, 1):
        assert animate("--no-metadata", action=files / "compact.safetensors", strength=strength) == 0
        videos.append((tmp_path / "video.gif").read_bytes())
    assert animate("--no-metadata") == 0
    assert (tmp_path / "video.gif").read_bytes() == videos[0]
    assert videos[0] != videos[1]


def test_details_are_brought_back_and_frame_0_is_decoded_or_the_picture(
    animate: Callable[..., int], files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def video(*flags: str, **changes: object) -> list[bytes]:
        out = tmp_path / "v.webp"
        assert animate(*flags, **{"decoder": files / "details.safetensors", "out": out, **changes}) == 0
        with Image.open(out) as file:
            return [frame.convert("RGB").tobytes() for frame in ImageSequence.Iterator(file)]

    keep = "--keep-first-frame"
    detailed, plain = video(), video(decoder=None)
    assert "details: 4 levels, warping and attention, for small VAE" in capsys.readouterr().err
    assert video(details=0.0) == plain
    assert detailed[0] != plain[0]
    assert detailed[1] != plain[1]
    detailed_kept, plain_kept = video(keep), video(keep, decoder=None)
    assert detailed_kept[0] == plain_kept[0] != detailed[0]
    assert plain_kept[0] != plain[0]
    assert (detailed_kept[1:], plain_kept[1:]) == (detailed[1:], plain[1:])


def test_a_decoder_for_another_vae_is_refused(
    animate: Callable[..., int], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert animate(decoder=files / "other_vae.safetensors") == 2
    assert "error: The detail decoder 'other_vae' was trained with another VAE" in capsys.readouterr().err


def test_standalone_action_needs_no_motion(animate: Callable[..., int], files: Path) -> None:
    assert animate(motion=None, action=files / "standalone.safetensors") == 0


def test_size_comes_from_the_picture(
    animate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert animate(size=None, frames=2) == 0
    assert "The picture is 70 x 100; its centre was taken and resized to 64 x 96." in capsys.readouterr().err
    with Image.open(tmp_path / "video.gif") as file:
        assert file.size == (64, 96)


def test_what_was_loaded_is_said(animate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert animate(frames=2) == 0
    said = capsys.readouterr().err
    assert "motion: AnimateDiff v3 (" in said
    assert "Animating: 100%" in said
    assert "Decoding: 100%" in said


def test_half_precision_runs_too(animate: Callable[..., int]) -> None:
    assert animate(frames=2, dtype="bf16") == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": "video.avi"}, "video.avi is no video file that can be written"),
        ({"out": "missing/video.mp4"}, "There is no folder"),
        ({"image": "missing.png"}, "missing.png cannot be read as a picture"),
        ({"base": "missing"}, "There is no base model at missing"),
        ({"base": __file__}, "test_cli_animate.py is a single file, which holds no tokenizer"),
        ({"motion": "missing.ckpt"}, "There is no file missing.ckpt"),
        ({"motion": __file__}, "test_cli_animate.py is neither a safetensors nor a PyTorch file"),
        ({"motion": None}, "nothing to animate with: give --motion, or a standalone action with --action"),
        ({"action": __file__}, "test_cli_animate.py is neither a safetensors nor a PyTorch file"),
        ({"frames": 1}, "A video needs 2 frames or more"),
        ({"frames": 33}, "The video has 33 frames, but this motion was trained with up to 32"),
        ({"steps": 0}, "`steps` must lie between 1 and 999"),
        ({"size": "30x16"}, "The size 30 x 16 is not a multiple of 8 on both sides: use 32 x 16."),
        ({"adain": 2}, "AdaIN strength must lie between 0 and 1"),
        ({"fps": 0}, "--fps must be 1 or more"),
        ({"seed": -1}, "--seed must lie between 0 and 2^64 - 1"),
        ({"cfg": "nan"}, "`cfg` must be a number"),
        ({"strength": 0.5}, "--strength is the strength of an action"),
        ({"details": 0.5}, "--details says how much of a --decoder: give one"),
        ({"details": "nan"}, "--details must be a number"),
        ({"decoder": __file__}, "test_cli_animate.py is neither a safetensors nor a PyTorch file"),
        ({"device": "abacus"}, "The device 'abacus' cannot be used"),
        ({"prompt": "abc " * 40}, "The prompt has 120 tokens"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    animate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    message: str,
) -> None:
    assert animate(**changes) == 2
    assert message in sentence_of(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_compact_action_without_its_motion_is_refused(
    animate: Callable[..., int], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert animate(motion=None, action=files / "compact.safetensors") == 2
    assert "'compact' is compact: it holds only what training changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "large"}, "'large' is no size: write it as 512x512"),
        ({"image": None}, "the following arguments are required: --image"),
        ({"dtype": "fp8"}, "invalid choice: 'fp8'"),
    ],
)
def test_arguments_that_cannot_be_read_are_refused(
    animate: Callable[..., int], capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        animate(**changes)
    assert message in capsys.readouterr().err


def test_mistakes_are_found_before_any_model_is_read(
    animate: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a model was read")

    monkeypatch.setattr(cli.animate, "read_motion", fail)
    monkeypatch.setattr(cli.animate, "load_base", fail)
    wrong = {"out": "video.avi", "image": "missing.png", "base": "missing", "frames": 1, "size": "30x16"}
    for name, value in wrong.items():
        assert animate(**{name: value}) == 2


def test_ctrl_c_leaves_the_old_video(
    animate: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> torch.Tensor:
        raise KeyboardInterrupt

    (tmp_path / "video.gif").write_text("old")
    monkeypatch.setattr(cli.animate, "decode_frames", interrupted)
    assert animate() == 130
    assert (tmp_path / "video.gif").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1

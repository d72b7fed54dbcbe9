"""All kinds of files that users bring: a good one of each, what reads it, and how it is spoiled."""

import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from flash_pack.flash_modules.animatediff.motion_file import read_motion
from flash_pack.flash_modules.animatediff.motion_module import MotionModel
from flash_pack.flash_modules.backends.diffusers.sd15 import (
    add_action,
    encode_prompt,
    find_base,
    load_base,
    load_vae,
    make_detail_decoder,
)
from flash_pack.flash_modules.backends.diffusers.sd15.action import keys_values
from flash_pack.flash_modules.files.tensor_file import fingerprint, read_tensors
from flash_pack.flash_modules.files.video_files import fit_picture, read_picture, write_video
from flash_pack.flash_modules.flash.action_file import Action, Source, read_action, write_action
from flash_pack.flash_modules.flash.decoder_file import read_detail_decoder
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.flash_modules.training.loop import LoopConfig, check_fits, train
from flash_pack.flash_modules.training.run_folder import LossTable, RunFolder
from flash_pack.tests.backends.original_names import checkpoint
from flash_pack.tests.backends.small_models import (
    SD15_WIDTHS,
    save_tokenizer,
    small_motion,
    small_text_encoder,
    small_unet,
    small_vae,
)
from flash_pack.tests.backends.test_cli_animate import write_decoder
from flash_pack.tests.fuzz.mutations import (
    BYTES,
    pickle_attacks,
    read_safetensors,
    safetensors_bytes,
    spoil_header,
    spoil_json,
    spoil_tensors,
)

SETTINGS = {"seed": 3, "clips": ["a", "b"], "method": {"tau": 90.0}}


@dataclass(frozen=True)
class Kind:
    """A kind of file."""

    name: str
    good: Path
    """A file, or a folder."""
    read: Callable[[Path], object]
    share: float = 1.0
    """Of the files that are tried."""
    attacks: tuple[bytes, ...] = ()
    """Whole files that are tried as they are."""


def make_kinds(folder: Path, large: int = 10**9) -> list[Kind]:
    """A good file of each kind in the folder, small; bombs unpack to so many bytes."""
    torch.set_num_threads(1)
    motion = small_motion()
    _make_base(folder / "base")
    save_file(motion.tensors, folder / "motion.safetensors")
    torch.save({"state_dict": motion.tensors, "epoch": 3}, folder / "motion.ckpt")
    torch.save(motion.tensors, folder / "motion.pth", _use_new_zipfile_serialization=False)
    tokenizer = folder / "base" / "tokenizer"
    single = checkpoint(small_unet(widths=SD15_WIDTHS), small_vae(), small_text_encoder())
    save_file(single, folder / "single.safetensors")
    torch.save({"state_dict": single}, folder / "single.ckpt")
    _make_actions(folder)
    write_decoder(folder / "details.safetensors", small_vae())
    _make_bin_base(folder / "base", folder / "base-bin")
    save_file(small_vae().state_dict(), folder / "vae.safetensors")
    with warnings.catch_warnings(action="ignore"):  # of kinds of tensors that are rare
        attacks = tuple(pickle_attacks(dict(motion.tensors), folder / "trap", large))

    def read_base(path: Path) -> None:
        files = find_base(path) if path.is_dir() else find_base(path, tokenizer)
        assert files.vae_factor
        loaded = load_base(files)
        encode_prompt(loaded, "a b c")

    def read_and_use_motion(path: Path) -> None:
        found = read_motion(path)
        MotionModel(found.config).load_state_dict({n: t.float() for n, t in found.tensors.items()})
        assert found.summary
        assert found.sha256

    def read_and_use_action(path: Path) -> None:
        action = read_action(path)
        add_action(small_unet(), None if action.kind == "standalone" else motion, action)

    def read_and_use_decoder(path: Path) -> None:
        make_detail_decoder(small_vae(), read_detail_decoder(path))

    return [
        Kind("safetensors", folder / "motion.safetensors", read_tensors),
        Kind("pickle (zip)", folder / "motion.ckpt", read_tensors, attacks=attacks),
        Kind("pickle (legacy)", folder / "motion.pth", read_tensors),
        Kind("motion .safetensors", folder / "motion.safetensors", read_and_use_motion),
        Kind("motion .ckpt", folder / "motion.ckpt", read_and_use_motion, 0.7, attacks),
        Kind("motion .pth", folder / "motion.pth", read_and_use_motion, 0.5),
        Kind("action, compact", folder / "compact.safetensors", read_and_use_action),
        Kind("action, standalone", folder / "standalone.safetensors", read_and_use_action, 0.5),
        Kind("detail decoder", folder / "details.safetensors", read_and_use_decoder),
        Kind("base file .safetensors", folder / "single.safetensors", read_base, 0.7),
        Kind("base file .ckpt", folder / "single.ckpt", read_base, 0.5, attacks),
        Kind("base folder", folder / "base", read_base, 2.5),
        Kind("base folder .bin", folder / "base-bin", read_base, 0.7),
        Kind("VAE file", folder / "vae.safetensors", load_vae, 0.5),
        Kind("tokenizer", tokenizer, lambda path: load_base(find_base(folder / "base", path)), 1.5),
        *_pictures_and_clips(folder / "clips"),
        Kind("run folder", _make_run(folder / "runs"), _go_on, 2.0),
    ]


def _make_base(folder: Path) -> None:
    small_unet().save_pretrained(folder / "unet")
    small_vae().save_pretrained(folder / "vae")
    small_text_encoder().save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "epsilon"}))


def _make_bin_base(base: Path, folder: Path) -> None:
    shutil.copytree(base, folder)
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "pytorch_model"),
    ):
        (file,) = (folder / part).glob("*.safetensors")
        torch.save(read_safetensors(file)[0], folder / part / f"{name}.bin")
        file.unlink()


def _make_actions(folder: Path) -> None:
    motion, base = small_motion(), keys_values(small_unet())
    compact = Action(
        name="wave",
        kind="compact",
        motion={name: t.half() for name, t in motion.tensors.items() if ".attention_blocks." in name},
        kv_diffs={name: torch.full(weight.shape, 0.01) for name, weight in base.items()},
        base=Source(name="small", sha256=fingerprint(base)),
        motion_module=Source(name="small_motion", sha256=motion.sha256, version="v3"),
        frames=16,
        prompts=("a girl waves",),
        header={"flash.trainable": '"attention"'},
    )
    write_action(folder / "compact.safetensors", compact, motion.config)
    whole = replace(compact, kind="standalone", motion=motion.tensors)
    write_action(folder / "standalone.safetensors", whole, motion.config)


def _pictures_and_clips(folder: Path) -> Iterator[Kind]:
    frames = [torch.full((48, 64, 3), i / 9) for i in range(8)]
    for i, frame in enumerate(frames):
        frame[8:24, 4 * i : 4 * i + 12, 0] = 1
    folder.mkdir()
    for suffix in ("mp4", "gif", "webp"):
        write_video(folder / f"clip.{suffix}", frames, 8)
    picture = Image.effect_noise((70, 100), 90).convert("RGB")
    picture.putpixel((3, 4), (255, 0, 0))
    for suffix in ("png", "jpg", "webp", "bmp", "tif", "gif"):
        picture.save(folder / f"picture.{suffix}")
        yield Kind(f"picture .{suffix}", folder / f"picture.{suffix}", _use_picture, 0.5, tuple(_NO_PICTURES))
    for suffix in ("mp4", "gif", "webp"):
        yield Kind(f"clip .{suffix}", folder / f"clip.{suffix}", _use_clip, 0.7, tuple(_NO_CLIPS))
    (folder / "clip.txt").write_text("a girl waves\n", encoding="utf-8")
    yield Kind("caption", folder / "clip.txt", partial(_use_caption, folder / "clip.gif"))


_NO_PICTURES = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n",
    b"\xc5\xd0\xd3\xc6" + bytes(40) + b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"P6 100000 100000 255\n",
)
_NO_CLIPS = (
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'></MPD>",
)


def _use_picture(path: Path) -> None:
    fit_picture(read_picture(path), (32, 32))


def _use_clip(path: Path) -> None:
    clips = find_clips([path.parent])
    for clip in clips.used:
        clip.read(range(clip.num_frames), 32)


def _use_caption(clip: Path, path: Path) -> None:
    shutil.copy(clip, path.with_name("clip.gif"))
    find_clips([path.parent])


def _weights() -> dict[str, torch.nn.Parameter]:
    return {name: torch.nn.Parameter(torch.ones(4, 3)) for name in ("first", "second")}


def _make_run(folder: Path) -> Path:
    run, weights = RunFolder(folder, "run", SETTINGS), _weights()
    config = LoopConfig(steps=6, save_steps=2, keep=2)
    train(run, weights, lambda part: sum((w - part).square().mean() for w in weights.values()), config)
    return run.path


def _go_on(path: Path) -> None:
    run, weights = RunFolder(path.parent, path.name, SETTINGS), _weights()
    fits = partial(check_fits, weights=weights)
    found, _ = run.newest(fits)
    step = found.progress.step if found else 0
    LossTable(run.path / "loss.csv", step).close()
    config = LoopConfig(steps=step + 1, save_steps=2, keep=2)
    train(run, weights, lambda part: sum((w - 1).square().mean() for w in weights.values()), config)
    assert run.newest(fits)[0].progress.step == step + 1


def spoil(kind: Kind, number: int, draw: random.Random, folder: Path) -> tuple[Path, str]:
    """A spoiled copy of the kind's good file in the folder, and in words what was done."""
    folder.mkdir(parents=True)
    if kind.good.is_file():
        target = folder / kind.good.name
        if number < len(kind.attacks):
            target.write_bytes(kind.attacks[number])
            return target, f"attack {number}"
        data, what = _spoiled(kind.good, draw, folder)
        target.write_bytes(data)
        return target, what
    copy = shutil.copytree(kind.good, folder / kind.good.name)
    files = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "lock")
    file = draw.choice(files)
    what = "gone"
    if draw.random() < 0.03:
        file.unlink()
    elif draw.random() < 0.03:
        file.unlink()
        file.mkdir()
        what = "a folder in its place"
    else:
        data, what = _spoiled(file, draw, folder)
        file.write_bytes(data)
        if draw.random() < 0.5:
            for sums in copy.rglob("SHA256SUMS"):  # as checkpoints from before had none
                sums.unlink()
    return copy, f"{file.relative_to(copy)}: {what}"


def _spoiled(file: Path, draw: random.Random, folder: Path) -> tuple[bytes, str]:
    data, knows_tensors = file.read_bytes(), file.suffix in (".safetensors", ".ckpt", ".pth", ".bin")
    if file.suffix == ".json" and draw.random() < 0.8:
        return spoil_json(data, draw), "settings"
    if knows_tensors and draw.random() < 0.55:
        return _spoiled_tensors(file, draw, folder), "tensors"
    mutation = draw.choice(BYTES)
    return mutation(data or b"\0", draw), mutation.__name__


def _spoiled_tensors(file: Path, draw: random.Random, folder: Path) -> bytes:
    scratch = folder.parent / f"{folder.name}.scratch"
    scratch.mkdir()
    try:
        if file.suffix == ".safetensors":
            tensors, metadata = read_safetensors(file)
            if metadata and draw.random() < 0.4:
                return safetensors_bytes(tensors, spoil_header(metadata, draw), scratch)
            return safetensors_bytes(spoil_tensors(tensors, draw), metadata, scratch)
        content = torch.load(file, weights_only=True)
        tensors = content.get("state_dict", content)
        wrap = draw.choice((lambda t: t, lambda t: {"state_dict": t}, lambda t: {"model_state_dict": t}))
        is_zip = file.suffix != ".pth"
        torch.save(wrap(spoil_tensors(tensors, draw)), scratch / "x", _use_new_zipfile_serialization=is_zip)
        return (scratch / "x").read_bytes()
    finally:
        shutil.rmtree(scratch)

"""The small base as the product reads it: tokenizer, export, and a video made with it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors import WORDS as WORDS_OF_ACTORS
from actors.__main__ import main
from actors.base import export
from actors.base.pool import PoolClip, actor_clip
from actors.base.pretrain import MINUTES, STAGES, Pretraining
from actors.base.sizes import IMAGE_SIZE, LATENT_SIZE, NUM_FRAMES
from actors.base.small_base import image_size, load_small_base
from actors.base.tokenizer import make_tokenizer, tokens_of
from actors.base.training import Limit, averaged_weights
from actors.world.actions import HELD_OUT_ACTIONS
from flash_modules.animatediff.motion_file import read_motion
from flash_modules.backends.diffusers.sd15 import encode_prompt, find_base, load_base
from flash_modules.cli import main as flash

WORDS = ("a", "person", "is", "doing", "push-ups", "shirt", "hi", "hip", "red", ",")
CAPTION = "a person is doing push-ups, red shirt"


def flat_clip(seed: int, index: int) -> PoolClip:
    color = torch.randint(256, (1, 1, 1, 3), generator=torch.Generator().manual_seed(seed * 1000 + index))
    frames_FHW3 = color.expand(NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3).byte().contiguous().numpy()
    return PoolClip(frames_FHW3, np.zeros((NUM_FRAMES, LATENT_SIZE, LATENT_SIZE), np.uint8), CAPTION)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, with a step each."""
    folder = tmp_path_factory.mktemp("base")
    limits = dict.fromkeys(MINUTES, Limit(steps=1))
    base = Pretraining(
        out=folder,
        limits=limits,
        num_clips=2,
        seed=0,
        workers=1,
        source=flat_clip,
        words=WORDS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.base.pool.CHUNK", 2)
        for stage in STAGES.values():
            stage(base)
    return folder


def test_export_loads_through_the_product(out: Path) -> None:
    base = load_base(find_base(out / "export"))
    motion = read_motion(out / "export" / "motion.safetensors")
    assert motion.version == "v3"
    assert motion.config.max_frames == NUM_FRAMES
    assert encode_prompt(base, CAPTION).shape == (1, 32, 64)
    assert base.vae.config.scaling_factor == 0.18215
    weights = averaged_weights(out / "clips", "unet")
    assert all(torch.equal(w, weights[n].half().float()) for n, w in base.unet.named_parameters())


def test_export_says_how_it_was_made(out: Path) -> None:
    about = json.loads((out / "export" / "training.json").read_text())
    assert about["held_out_actions"] == list(HELD_OUT_ACTIONS)
    assert about["stages"].keys() == MINUTES.keys()
    assert all(stage["steps"] == 1 for stage in about["stages"].values())


def test_export_that_is_too_large_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_MEGABYTES", 1.0)
    with pytest.raises(ValueError, match="at most 1 MB go into the repository"):
        export._check_size(out / "export")


def test_the_size_of_its_pictures_is_known_with_and_without_loading_it(out: Path) -> None:
    assert image_size(out / "export") == load_small_base(out / "export").size == IMAGE_SIZE


def test_animate_makes_a_video_with_the_export(out: Path, tmp_path: Path) -> None:
    Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), "teal").save(tmp_path / "picture.png")
    arguments = ["animate", "--base", out / "export", "--motion", out / "export" / "motion.safetensors"]
    arguments += ["--image", tmp_path / "picture.png", "--prompt", CAPTION, "--frames", 8, "--steps", 2]
    assert flash([*map(str, arguments), "--out", str(tmp_path / "video.gif")]) == 0
    with Image.open(tmp_path / "video.gif") as video:
        assert video.size == (IMAGE_SIZE, IMAGE_SIZE)


def test_known_words_are_one_token_and_others_are_spelled(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, WORDS)
    assert [len(tokenizer(word).input_ids) - 2 for word in WORDS] == [1, 1, 1, 1, 3, 1, 1, 1, 1, 1]
    assert tokenizer.decode(tokenizer("Hip").input_ids, skip_special_tokens=True).strip() == "hip"
    unknown = tokenizer("zebra 7 \u00e9\u732b!").input_ids
    assert tokenizer.decode(unknown, skip_special_tokens=True).strip() == "zebra 7 \u00e9\u732b !"
    tokens_M = tokens_of(tokenizer, CAPTION)
    assert tokens_M[0] == tokenizer.bos_token_id
    assert (tokens_M[-5:] == tokenizer.eos_token_id).all()
    with pytest.raises(ValueError, match=r"more than 32: \"red red"):
        tokens_of(tokenizer, "red " * 31)


def test_every_caption_of_the_actors_fits_the_text_encoder(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, WORDS_OF_ACTORS)
    for index in range(6):
        caption = actor_clip(0, index).caption
        tokens_M = tokens_of(tokenizer, caption)
        words = re.findall(r"\w+|[^\w\s]+", caption)
        assert (tokens_M == tokenizer.eos_token_id).sum() == 32 - 1 - len(words)


def test_error_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--out", str(tmp_path), "--stage", "vae"]) == 2
    assert "run the stage `pool` first" in capsys.readouterr().err

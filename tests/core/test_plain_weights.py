"""Weights under the names of wrappers and trainers; averaged ones beside plain ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flash_pack.flash_modules.animatediff.motion_file import motion_weights, read_motion

Tensors = dict[str, Tensor]


@pytest.fixture
def motion(motion_tensors) -> Tensors:
    return motion_tensors(32)


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_same(found: Tensors, tensors: Tensors) -> None:
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(".pe")}
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "unet.",
        "model.",
        "model_state_dict.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.unet._orig_mod.",
        "_fsdp_wrapped_module.",
        "motion_module.",
        "net.",
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_prefix_is_taken_off(tmp_path: Path, motion: Tensors, prefix: str, suffix: str) -> None:
    path, named = tmp_path / f"mm{suffix}", prefixed(motion, prefix)
    if suffix == ".ckpt":
        torch.save({"state_dict": named}, path)
    else:
        save_file({name: tensor.clone() for name, tensor in named.items()}, path)
    found = read_motion(path)
    assert_same(found.tensors, motion)
    assert found.version == "v3"
    assert found.note == ""


def test_wrappers_of_parts_are_taken_off(motion: Tensors) -> None:
    named = {
        name.replace("motion_modules.1.", "motion_modules.1._orig_mod.").replace(
            "temporal_transformer.", "temporal_transformer._checkpoint_wrapped_module."
        ): tensor
        for name, tensor in motion.items()
    }
    assert_same(motion_weights(named, "mm.ckpt").tensors, motion)


def test_wrapped_dictionaries_are_found(tmp_path: Path, motion: Tensors) -> None:
    for key in ("state_dict", "model_state_dict", "model", "module", "unet", "motion_module"):
        torch.save({"epoch": 3, key: motion, "optimizer": {"state": {0: {"step": 1}}}}, tmp_path / "mm.ckpt")
        assert_same(read_motion(tmp_path / "mm.ckpt").tensors, motion)
    torch.save({"checkpoint": {"model": {"state_dict": prefixed(motion, "module.")}}}, tmp_path / "mm.ckpt")
    assert_same(read_motion(tmp_path / "mm.ckpt").tensors, motion)


@pytest.mark.parametrize(
    "ema", ["ema_state_dict", "state_dict_ema", "model_ema", "ema", "ema_model", "unet_ema"]
)
@pytest.mark.parametrize("plain", ["state_dict", "model_state_dict", "model"])
def test_of_plain_and_averaged_weights_the_plain_ones_are_read_and_it_is_said(
    tmp_path: Path, motion: Tensors, ema: str, plain: str
) -> None:
    averaged = {name: tensor + 1 if "pe" not in name else tensor for name, tensor in motion.items()}
    content = {
        "epoch": 3,
        plain: prefixed(motion, "module."),
        ema: prefixed(averaged, "module."),
    }
    torch.save(content, tmp_path / "mm.ckpt")
    found = read_motion(tmp_path / "mm.ckpt")
    assert_same(found.tensors, motion)
    assert found.note == f"its plain weights; the averaged ones (EMA, under {ema}.module) are left out"
    assert found.summary.endswith(found.note)


def test_averaged_weights_alone_are_read_and_it_is_said(tmp_path: Path, motion: Tensors) -> None:
    torch.save({"ema_state_dict": motion}, tmp_path / "mm.ckpt")
    found = read_motion(tmp_path / "mm.ckpt")
    assert_same(found.tensors, motion)
    assert found.note == "its averaged weights (EMA, under ema_state_dict), as it has no others"


def test_two_plain_ones_are_refused(motion: Tensors) -> None:
    both = prefixed(motion, "student.") | prefixed(motion, "teacher.")
    with pytest.raises(
        ValueError, match=r"mm.ckpt holds 2 sets of plain weights \(student., teacher.\): keep"
    ):
        motion_weights(both, "mm.ckpt")


def test_pia_under_a_prefix_is_refused(motion: Tensors) -> None:
    for prefix in ("unet.", "_orig_mod.", "model_state_dict.module."):
        named = prefixed({**motion, "conv_in.weight": torch.zeros(32, 9, 3, 3)}, prefix)
        with pytest.raises(ValueError, match="PIA or a relative"):
            motion_weights(named, "mm.ckpt")


MODULE = "down_blocks.0.motion_modules.0.temporal_transformer"
PE = f"{MODULE}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"


@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        (torch.zeros(1).expand(1, 10**9, 32), "has 1000000000 positions .* no motion module knows so many"),
        (torch.zeros(1).expand(1, 24, 2**40), "has positions of its own"),
        (torch.zeros(1, 5000, 32), "has 5000 positions"),
        (torch.zeros(1, 0, 32), "has positions of its own"),
        (torch.zeros(1, 24, 0), "has positions of its own"),
        (torch.zeros(()), "has positions of its own"),
        (torch.zeros(3), "has positions of its own"),
        (torch.full((1, 24, 32), float("nan")), "not finite"),
        (torch.zeros(1, 24, 32, dtype=torch.complex64), "as complex64"),
        (torch.zeros(1, 24, 32, dtype=torch.int64), "as int64"),
    ],
)
def test_odd_positions_are_refused_at_once(motion: Tensors, positions: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        motion_weights({**motion, PE: positions}, "mm.ckpt")


def test_absurd_widths_and_levels_are_refused_at_once(motion: Tensors) -> None:
    norm = "down_blocks.{}.motion_modules.0.temporal_transformer.norm.weight"
    wide = {**motion, norm.format(0): torch.zeros(1).expand(2**40)}
    with pytest.raises(ValueError, match="does not fit"):
        motion_weights(wide, "mm.ckpt")
    many = {**motion, **{norm.format(i): torch.zeros(32) for i in range(4, 3000)}}
    with pytest.raises(ValueError, match=r"mm.ckpt is (incomplete|a motion module of another kind)"):
        motion_weights(many, "mm.ckpt")

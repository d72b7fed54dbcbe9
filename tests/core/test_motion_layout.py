"""Files that are no motion module for Stable Diffusion 1.5, each with its sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from torch import Tensor

from flash_pack.flash_modules.animatediff.motion_file import motion_weights, read_motion
from flash_pack.flash_modules.files.tensor_file import write_tensors

Tensors = dict[str, Tensor]

MODULE = "down_blocks.0.motion_modules.0.temporal_transformer"
ATTENTION = f"{MODULE}.transformer_blocks.0.attention_blocks.0"
NEEDED = r"FLASH needs an AnimateDiff motion module for Stable Diffusion 1\.5 \(v1, v2, v3 or AnimateLCM\)\."


def named(*names: str) -> Tensors:
    return {name: torch.zeros(32, 4, 3, 3) for name in names}


OTHERS = {
    "hsxl_temporal_layers": (
        named(
            "down_blocks.0.temporal_attentions.0.norm.weight",
            "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.pos_encoder.positional_encoding",
        ),
        "a HotShot-XL motion module, made for SDXL",
    ),
    "v2_lora_ZoomIn": (
        named(f"{ATTENTION}.processor.to_q_lora.down.weight", f"{ATTENTION}.processor.to_q_lora.up.weight"),
        "a motion LoRA, which only changes a motion module",
    ),
    "diffusers_motion_lora": (
        named("unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.lora_A.weight"),
        "a motion LoRA",
    ),
    "v3_sd15_adapter": (
        named("down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"),
        "a LoRA for image models, not a motion module",
    ),
    "kohya_lora": (
        named("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"),
        "a LoRA for image models, not a motion module",
    ),
    "v3_sd15_sparsectrl_rgb": (
        named(f"module.{ATTENTION}.to_q.weight", "module.controlnet_cond_embedding.conv_in.weight"),
        "a SparseCtrl encoder, not a motion module",
    ),
    "CameraCtrl_pruned": (
        named("encoder_conv_in.weight", f"{ATTENTION}.processor.qkv_merge.weight"),
        "a CameraCtrl camera encoder",
    ),
    "AnimateLCM_sd15_i2v": (
        named("img_encoder.conv_in.weight", f"{ATTENTION}.to_q.weight"),
        "an image-to-video motion module with an encoder of its own",
    ),
    "control_v11p_sd15_canny": (
        named("control_model.input_blocks.0.0.weight"),
        "a ControlNet, not a motion module",
    ),
    "control_stripped": (named("input_hint_block.0.weight"), "a ControlNet, not a motion module"),
    "v1-5-pruned-emaonly": (
        named("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"),
        "a whole image or video model",
    ),
    "ip-adapter_sd15": (
        named("image_proj.proj.weight"),
        r"not a motion module \(it holds image_proj.proj.weight\)",
    ),
}


@pytest.mark.parametrize(("tensors", "what"), OTHERS.values(), ids=OTHERS)
def test_another_kind_of_file_is_called_by_its_name(tensors: Tensors, what: str) -> None:
    with pytest.raises(ValueError, match=rf"^file\.safetensors is {what}.*\. {NEEDED}$"):
        motion_weights(tensors, "file.safetensors")


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (lambda: ControlNetModel(block_out_channels=(32, 32, 32, 32), cross_attention_dim=8), "a ControlNet"),
        (lambda: AutoencoderKL(block_out_channels=(32,)), "a VAE"),
    ],
    ids=["ControlNet", "VAE"],
)
def test_models_of_diffusers_are_called_by_their_names(
    model: Callable[[], torch.nn.Module], what: str
) -> None:
    with torch.device("meta"):
        tensors = model().state_dict()
    with pytest.raises(ValueError, match=rf"file is {what}, not a motion module"):
        motion_weights(tensors, "file")


def test_a_checkpoint_of_cameractrls_trainer_is_called_by_its_name(tmp_path: Path) -> None:
    content = {
        "epoch": 1,
        "pose_encoder_state_dict": named("encoder_conv_in.weight"),
        "attention_processor_state_dict": named(f"{ATTENTION}.processor.qkv_merge.weight"),
        "optimizer_state_dict": {"state": {0: {"step": 3}}},
    }
    torch.save(content, tmp_path / "CameraCtrl.ckpt")
    with pytest.raises(ValueError, match=r"CameraCtrl.ckpt is a CameraCtrl camera encoder"):
        read_motion(tmp_path / "CameraCtrl.ckpt")


def test_a_flash_action_is_sent_to_its_own_folder(tmp_path: Path, motion_tensors) -> None:
    path = tmp_path / "wave.safetensors"
    write_tensors(path, {"a": torch.zeros(1)}, {"flash.format": "1"})
    with pytest.raises(
        ValueError, match=r"is a FLASH action, not a motion module: move it to models/flash_actions"
    ):
        read_motion(path)


def test_a_module_for_sdxl_is_refused(motion_tensors) -> None:
    tensors = motion_tensors(32, widths=(320, 640, 1280), fill=lambda shape: torch.zeros(1).expand(shape))
    with pytest.raises(
        ValueError, match=rf"mm_sdxl.ckpt is a motion module for SDXL, whose U-Net has 3 levels. {NEEDED}"
    ):
        motion_weights(tensors, "mm_sdxl.ckpt")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_pia_is_refused(motion_tensors, prefix: str) -> None:
    tensors = {prefix + name: tensor for name, tensor in motion_tensors(32).items()}
    motion_weights({**tensors, f"{prefix}conv_in.weight": torch.zeros(32, 4, 3, 3)}, "pia.ckpt")
    with pytest.raises(
        ValueError, match=rf"pia.ckpt is an image-to-video motion module .*\(PIA or a relative\). {NEEDED}"
    ):
        motion_weights({**tensors, f"{prefix}conv_in.weight": torch.zeros(32, 9, 3, 3)}, "pia.ckpt")


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        (
            lambda name: "up_blocks.2.motion_modules.1.temporal_transformer.proj_out.bias" not in name,
            "1 of 520",
        ),
        (lambda name: "down_blocks.1.motion_modules.0" not in name, "26 of 520"),
        (lambda name: "down_blocks.1.motion_modules.1" not in name, "26 of 520"),
        (lambda name: "up_blocks.3" not in name, "78 of 520"),
        (lambda name: "up_blocks" not in name, "312 of 520"),
        (lambda name: "norm" in name, "360 of 520"),
    ],
)
def test_an_incomplete_file_is_refused(motion_tensors, kept: Callable[[str], bool], missing: str) -> None:
    tensors = {name: tensor for name, tensor in motion_tensors(24).items() if kept(name)}
    with pytest.raises(
        ValueError, match=rf"mm.ckpt is incomplete: {missing} tensors are missing \(.*\). Download it again"
    ):
        motion_weights(tensors, "mm.ckpt")


def test_missing_tensors_are_counted_and_named(motion_tensors) -> None:
    tensors = motion_tensors(24)
    del tensors[f"{MODULE}.norm.bias"]
    with pytest.raises(
        ValueError, match=rf"incomplete: 1 of 520 tensors are missing \({MODULE}.norm.bias\). Download"
    ):
        motion_weights(tensors, "mm.ckpt")


@pytest.mark.parametrize("kept", ["up_blocks", "mid_block", "proj_in"])
def test_a_part_of_a_file_is_refused(motion_tensors, kept: str) -> None:
    tensors = {name: tensor for name, tensor in motion_tensors(24, mid=True).items() if kept in name}
    with pytest.raises(
        ValueError, match=rf"mm.ckpt does not fit Stable Diffusion 1.5, whose U-Net has .* {NEEDED}"
    ):
        motion_weights(tensors, "mm.ckpt")


def test_other_channels_than_a_unet_can_have_are_refused(motion_tensors) -> None:
    with pytest.raises(
        ValueError, match=r"does not fit Stable Diffusion 1.5.*: its own have \[8, 32, 32, 32\]"
    ):
        motion_weights(motion_tensors(24, widths=(8, 32, 32, 32)), "mm.ckpt")


@pytest.mark.parametrize(
    "name",
    [
        f"{ATTENTION}.to_k.bias",
        "down_blocks.0.motion_modules.2.temporal_transformer.norm.weight",
        "down_blocks.0.motion_modules.x.norm.weight",
        f"{MODULE}.transformer_blocks.0.attention_blocks.0.pos_encoder.pos_encoding",
    ],
)
def test_unknown_tensors_are_refused(motion_tensors, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"mm.ckpt is a motion module of another kind: 1 tensors are unknown"
    ):
        motion_weights({**motion_tensors(24), name: torch.zeros(32)}, "mm.ckpt")


def test_a_wrong_shape_is_refused(motion_tensors) -> None:
    tensors = {**motion_tensors(24), f"{ATTENTION}.to_q.weight": torch.zeros(32, 33)}
    with pytest.raises(
        ValueError, match=rf"{ATTENTION}.to_q.weight has the shape \(32, 33\) instead of \(32, 32\)"
    ):
        motion_weights(tensors, "mm.ckpt")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(motion_tensors, bad: float) -> None:
    tensors = motion_tensors(24, dtype=torch.float16)
    tensors[f"{ATTENTION}.to_q.weight"][3, 5] = bad
    with pytest.raises(
        ValueError, match=rf"mm.ckpt is broken: {ATTENTION}.to_q.weight holds values that are not finite"
    ):
        motion_weights(tensors, "mm.ckpt")


def test_weights_in_fp8_are_refused(motion_tensors) -> None:
    tensors = motion_tensors(24)
    tensors[f"{ATTENTION}.to_q.weight"] = tensors[f"{ATTENTION}.to_q.weight"].to(torch.float8_e4m3fn)
    with pytest.raises(
        ValueError, match=r"stores .*to_q.weight as float8_e4m3fn, .* take an fp16, bf16 or fp32 version"
    ):
        motion_weights(tensors, "mm.ckpt")


@pytest.mark.parametrize(
    "positions",
    [
        torch.randn(1, 24, 32),
        torch.zeros(1, 24, 32),
        torch.zeros(24, 32),
        torch.zeros(1, 24),
        torch.zeros(1, 24, 33),
    ],
)
def test_positions_that_are_not_sine_waves_are_refused(motion_tensors, positions: Tensor) -> None:
    tensors = {**motion_tensors(24), f"{ATTENTION}.pos_encoder.pe": positions}
    with pytest.raises(
        ValueError, match=r"mm.ckpt has positions of its own .*instead of AnimateDiff's sine waves"
    ):
        motion_weights(tensors, "mm.ckpt")

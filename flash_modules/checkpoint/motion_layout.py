"""Names of weights in motion module files: which file is it, and its AnimateDiff names and layout."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..motion_module import MotionConfig
from .tensor_file import Tensors, some

POSITIONS = ".pos_encoder.pe"

_MODULE = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.motion_modules\.(\d+)\.|mid_block\.motion_modules\.(\d+)\.")
_BLOCK = re.compile(r"\.transformer_blocks\.(\d+)\.attention_blocks\.(\d+)\.")

_DIFFUSERS_NAMES = (
    ("attn1.", "attention_blocks.0."),
    ("attn2.", "attention_blocks.1."),
    ("norm1.", "norms.0."),
    ("norm2.", "norms.1."),
    ("norm3.", "ff_norm."),
)

_OTHER_FILES = (
    ("temporal_attentions.", "a HotShot-XL motion module, made for SDXL"),
    ("controlnet_cond_embedding.", "a SparseCtrl encoder, not a motion module"),
    ("control_model.", "a ControlNet, not a motion module"),
    ("img_encoder.", "an image-to-video adapter with an encoder of its own, not a plain motion module"),
    ("pose_encoder.", "a CameraCtrl camera encoder, not a plain motion module"),
    ("lora_unet_", "a LoRA for image models, not a motion module"),
    ("first_stage_model.", "a whole Stable Diffusion checkpoint, not a motion module"),
    ("model.diffusion_model.", "an image or video model's U-Net, not a motion module"),
)

NEEDED = "FLASH needs an AnimateDiff motion module for Stable Diffusion 1.5 (v1, v2, v3 or AnimateLCM)."


def animatediff_names(tensors: Mapping[str, Tensor], file_name: str) -> Tensors:
    """The motion tensors under AnimateDiff's own names; other tensors of a whole U-Net are dropped.

    Raises ValueError, saying what the file is, if it holds no complete motion module for SD 1.5.
    """
    _refuse_other_files(tensors, file_name)
    motion: Tensors = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("module.")
        if ".motion_modules." not in name:
            continue
        if ".temporal_transformer." in name:
            motion[name] = tensor
        else:
            motion.update((known, tensor) for known in _from_diffusers(name))
    return motion


def _refuse_other_files(tensors: Mapping[str, Tensor], file_name: str) -> None:
    for mark, what in _OTHER_FILES:
        if any(mark in key for key in tensors):
            raise ValueError(f"{file_name} is {what}. {NEEDED}")
    if any("lora" in key for key in tensors):
        raise ValueError(f"{file_name} is a motion LoRA, which only changes a motion module. {NEEDED}")
    first_conv = tensors.get("conv_in.weight", tensors.get("module.conv_in.weight"))
    if first_conv is not None and first_conv.shape[1] != 4:
        raise ValueError(
            f"{file_name} is a PIA model, whose first convolution takes {first_conv.shape[1]} channels. {NEEDED}"
        )
    if not any(".motion_modules." in key for key in tensors):
        raise ValueError(f"{file_name} is not a motion module (it holds {some(tensors)}). {NEEDED}")


def _from_diffusers(name: str) -> list[str]:
    """AnimateDiff's names of a tensor of diffusers' MotionAdapter; positions are shared there by two attentions."""
    module, rest = re.split(r"(?<=\.motion_modules\.\d)\.", name, maxsplit=1)
    block, found, part = rest.partition("pos_embed.pe")
    if found:
        parts = [f"{block}attention_blocks.{i}{POSITIONS}" for i in range(2)]
    else:
        for theirs, ours in _DIFFUSERS_NAMES:
            rest = re.sub(rf"(?<=\d\.){re.escape(theirs)}", ours, rest)
        parts = [rest]
    return [f"{module}.temporal_transformer.{part}" for part in parts]


def layout(motion: Mapping[str, Tensor], max_frames: int) -> MotionConfig:
    """The motion model that these tensors describe; widths come from the tensors."""
    widths: dict[str, dict[int, dict[int, int]]] = {"down_blocks": {}, "up_blocks": {}, "mid_block": {0: {}}}
    for name, tensor in motion.items():
        found = _MODULE.match(name)
        if found and name.endswith(".temporal_transformer.norm.weight"):
            side, level, index, mid_index = found.groups()
            widths[side or "mid_block"].setdefault(int(level or 0), {})[int(index or mid_index or 0)] = len(tensor)
    blocks = [tuple(map(int, m.groups())) for m in map(_BLOCK.search, motion) if m]
    levels = {
        side: tuple(tuple(width for _, width in sorted(found[i].items())) for i in sorted(found))
        for side, found in widths.items()
    }
    return MotionConfig(
        down=levels["down_blocks"],
        up=levels["up_blocks"],
        mid=levels["mid_block"][0],
        num_blocks=max((b for b, _ in blocks), default=0) + 1,
        num_attentions=max((a for _, a in blocks), default=0) + 1,
        max_frames=max_frames,
    )

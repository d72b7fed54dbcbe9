"""Names of weights in motion module files: which file is it, and its AnimateDiff names and layout."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..files.plain_weights import plain_weights
from ..files.tensor_file import Tensors, some
from .motion_module import MotionConfig

POSITIONS = ".pos_encoder.pe"
NEEDED = "FLASH needs an AnimateDiff motion module for Stable Diffusion 1.5 (v1, v2, v3 or AnimateLCM)."

_BEGINS = re.compile(r"(?:^|(?<=\.))(?:down_blocks|up_blocks|mid_block)\.(?=.*(?:motion_m|temporal_t))")
_FIRST_CONV = re.compile(r"(?:(?:module|model|unet|_orig_mod|(?:model_)?state_dict)\.)*conv_in\.weight")
_MODULE = re.compile(r"(.*\.motion_modules\.\d+)\.(.*)")
_NORM = re.compile(r"down_blocks\.([0-9])\.motion_modules\.([0-9])\.temporal_transformer\.norm\.weight")

_DIFFUSERS_NAMES = {
    "attn1": "attention_blocks.0",
    "attn2": "attention_blocks.1",
    "norm1": "norms.0",
    "norm2": "norms.1",
    "norm3": "ff_norm",
}

_OTHER_FILES = (
    (("temporal_attentions.",), "a HotShot-XL motion module, made for SDXL"),
    (("qkv_merge.",), "a CameraCtrl camera encoder, not a plain motion module"),
    (("img_encoder.",), "an image-to-video motion module with an encoder of its own (AnimateLCM-I2V)"),
    (("motion_modules.", "controlnet_"), "a SparseCtrl encoder, not a motion module"),
    (("motion_modules.", "lora"), "a motion LoRA, which only changes a motion module"),
    (("lora",), "a LoRA for image models, not a motion module"),
    (("controlnet_",), "a ControlNet, not a motion module"),
    (("control_model.",), "a ControlNet, not a motion module"),
    (("input_hint_block.",), "a ControlNet, not a motion module"),
    (("model.diffusion_model.",), "a whole image or video model (a checkpoint), not a motion module"),
    (("decoder.conv_in.",), "a VAE, not a motion module"),
)
"""Parts of names that all occur in a kind of file, and what it is. The first match counts."""


def plain_motion(tensors: Mapping[str, Tensor], file_name: str) -> tuple[Tensors, bool, str]:
    """The tensors under the names that they have in no wrapper, whether they had one, and which were taken.

    Raises ValueError, saying what the file is, if it holds no plain motion module.
    """
    _refuse_other_files(tensors, file_name)
    plain, note = plain_weights(tensors, _BEGINS, file_name)
    return plain, not any(name in tensors for name in plain if _BEGINS.match(name)), note


def animatediff_names(tensors: Mapping[str, Tensor], file_name: str) -> Tensors:
    """The motion tensors under AnimateDiff's own names; other tensors of a whole U-Net are dropped.

    Raises ValueError, saying what the file is, if it holds no plain motion module.
    """
    _refuse_other_files(tensors, file_name)
    motion: Tensors = {}
    for name, tensor in tensors.items():
        if ".temporal_transformer." in name:
            motion[name] = tensor
        elif ".motion_modules." in name:
            motion.update(dict.fromkeys(_from_diffusers(name), tensor))
    return motion


def _refuse_other_files(tensors: Mapping[str, Tensor], file_name: str) -> None:
    for marks, what in _OTHER_FILES:
        if all(any(mark in key for key in tensors) for mark in marks):
            raise ValueError(f"{file_name} is {what}. {NEEDED}")
    if not any(".motion_modules." in key for key in tensors):
        raise ValueError(f"{file_name} is not a motion module (it holds {some(tensors)}). {NEEDED}")
    first_convs = [tensor for name, tensor in tensors.items() if _FIRST_CONV.fullmatch(name)]
    if any(conv.shape[1:2] != (4,) for conv in first_convs):
        raise ValueError(
            f"{file_name} is an image-to-video motion module whose U-Net takes more than 4 channels (PIA or "
            f"a relative). {NEEDED}"
        )


def _from_diffusers(name: str) -> list[str]:
    """AnimateDiff's names of a tensor of diffusers' MotionAdapter; positions serve two attentions there."""
    found = _MODULE.fullmatch(name)
    if not found:
        return [name]
    module, part = found.groups()
    if part.endswith("pos_embed.pe"):
        block = part.removesuffix("pos_embed.pe")
        return [f"{module}.temporal_transformer.{block}attention_blocks.{i}{POSITIONS}" for i in range(2)]
    words = (_DIFFUSERS_NAMES.get(word, word) for word in part.split("."))
    return [f"{module}.temporal_transformer.{'.'.join(words)}"]


def layout(motion: Mapping[str, Tensor], *, max_frames: int, pool_resnet_norms: bool) -> MotionConfig:
    """The motion model of a U-Net with these widths: 2 modules on each level down, 3 on each level up.

    A file without second modules on the way down is for a U-Net with one layer a block: 1 and 2.
    """
    norms = [(found, motion[found[0]]) for found in map(_NORM.fullmatch, sorted(motion)) if found]
    by_level = {int(found[1]): norm.numel() for found, norm in norms}
    widths = [by_level[level] for level in sorted(by_level)]
    layers = 2 if any(found[2] != "0" for found, _ in norms) else 1
    has_mid = any(name.startswith("mid_block.") for name in motion)
    return MotionConfig(
        down=tuple((width,) * layers for width in widths),
        up=tuple((width,) * (layers + 1) for width in reversed(widths)),
        mid=tuple(widths[-1:]) if has_mid else (),
        max_frames=max_frames,
        pool_resnet_norms=pool_resnet_norms,
    )

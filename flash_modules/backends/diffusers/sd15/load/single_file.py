"""Stable Diffusion 1.5 from one checkpoint file, with the names of the original code."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from .....animatediff.noise_schedule import MODELSPEC, Prediction
from .....files.plain_weights import plain_weights
from .....files.tensor_file import Tensors, read_tensors, some
from ...fill import Unfit, filled, telling
from .fill import inner, new_name, new_text_encoder

Parts = tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel, Prediction]
"""U-Net, VAE, text encoder, and what the U-Net predicts."""

NEEDED = "FLASH and AnimateDiff work on Stable Diffusion 1.5: load an SD 1.5 checkpoint."

SD15 = Path(__file__).parent / "configs"
"""Configs of Stable Diffusion 1.5; widths are read from the file."""

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer."

_BEGINS = tuple(re.compile(rf"(?:^|(?<=\.)){re.escape(prefix)}") for prefix in (_UNET, _VAE, _TEXT))
_VAE_ALONE = re.compile(
    r"(?:^|(?<=\.))(?:(?:encoder|decoder)\.(?:conv_|down|up|mid|norm_out)|(?:post_)?quant_conv\.)"
)
"""What a VAE's names begin with, where no checkpoint is around it."""

_OTHER_FILES = (
    ("conditioner.embedders.", "Stable Diffusion XL"),
    (f"{_UNET}label_emb.", "Stable Diffusion XL"),
    ("cond_stage_model.model.", "Stable Diffusion 2"),
    (f"{_UNET}joint_blocks.", "Stable Diffusion 3"),
    (f"{_UNET}double_blocks.", "Flux"),
    ("control_model.", "a ControlNet"),
    ("lora_unet_", "a LoRA"),
)


def read_checkpoint(path: Path) -> tuple[Parts, str]:
    """The parts of a checkpoint, and which of several weights were taken, if it holds several.

    Raises ValueError, with what the file is, for others. A U-Net predicts velocity if the file says so: in
    its header (modelspec), or by a tensor named `v_pred`.
    """
    tensors, metadata = read_tensors(path)
    notes: list[str] = []
    for begins in _BEGINS:
        tensors, note = plain_weights(tensors, begins, path.name)
        notes.append(note)
    _check_sd15(tensors, path.name)
    says_v = metadata.get("modelspec.prediction_type") == MODELSPEC["v_prediction"] or "v_pred" in tensors
    prediction: Prediction = "v_prediction" if says_v else "epsilon"
    with _naming_what_is_missing(path, f" {NEEDED}"):
        parts = _unet(tensors), _vae(tensors), _text_encoder(tensors), prediction
    return parts, next(filter(None, notes), "")


def read_vae(path: Path) -> AutoencoderKL:
    """The VAE of a checkpoint, or of a file that holds nothing else. Raises ValueError for others."""
    tensors, _ = read_tensors(path)
    if any(_VAE in name for name in tensors):
        tensors, _ = plain_weights(tensors, _BEGINS[1], path.name)
    else:
        tensors, _ = plain_weights(tensors, _VAE_ALONE, path.name)
        tensors = {_VAE + name: tensor for name, tensor in tensors.items()}
    latent = tensors.get(f"{_VAE}decoder.conv_in.weight")
    if latent is None or latent.shape[1:2] != (4,):
        raise ValueError(
            f"{path.name} holds no VAE of Stable Diffusion 1.5 (with 4 latent channels): give such a file, "
            "or an SD 1.5 checkpoint."
        )
    with _naming_what_is_missing(path, ""):
        return _vae(tensors)


@contextmanager
def _naming_what_is_missing(path: Path, needed: str) -> Iterator[None]:
    with telling(f"{path.name} is damaged: download it again.{needed} Its weights are odd"):
        try:
            yield
        except (KeyError, Unfit) as error:
            name = error.names[0] if isinstance(error, Unfit) else error.args[0]
            raise ValueError(
                f"{path.name} is incomplete: it lacks {name}, or that does not fit. Download it again."
                f"{needed}"
            ) from error


def _check_sd15(tensors: Mapping[str, Tensor], file_name: str) -> None:
    for mark, what in _OTHER_FILES:
        if any(key.startswith(mark) for key in tensors):
            raise ValueError(f"{file_name} is {what}. {NEEDED}")
    for prefix, part in ((_UNET, "U-Net"), (_VAE, "VAE"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in tensors):
            raise ValueError(f"{file_name} holds no {part} (it holds {some(tensors)}). {NEEDED}")
    first_conv = tensors.get(f"{_UNET}input_blocks.0.0.weight")
    if first_conv is None or first_conv.ndim != 4:
        raise ValueError(f"The U-Net of {file_name} has no first convolution, not 4 input channels. {NEEDED}")
    if first_conv.shape[1] != 4:
        found = f"{first_conv.shape[1]} input channels"
        raise ValueError(f"The U-Net of {file_name} has {found}, not 4 input channels. {NEEDED}")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _size(tensors: Mapping[str, Tensor], name: str, axis: int, most: int = 1280) -> int:
    """A size that the model is built by. Raises KeyError if it is none of Stable Diffusion 1.5 or smaller."""
    tensor = tensors[name]
    if tensor.ndim <= axis or not 0 < tensor.shape[axis] <= most:
        raise KeyError(name)
    return tensor.shape[axis]


def _unet(tensors: Mapping[str, Tensor]) -> UNet2DConditionModel:
    levels = [_size(tensors, f"{_UNET}input_blocks.{i}.0.out_layers.3.weight", 0) for i in (1, 4, 7, 10)]
    text_width = _size(tensors, f"{_UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1)
    config = UNet2DConditionModel.load_config(SD15 / "unet")
    config |= {"block_out_channels": levels, "cross_attention_dim": text_width}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    return filled(unet, convert_ldm_unet_checkpoint(_part(tensors, _UNET), config))


def _vae(tensors: Mapping[str, Tensor]) -> AutoencoderKL:
    """The VAE, under the names of the original code or of diffusers."""
    weights = {name.removeprefix(_VAE): tensor for name, tensor in _part(tensors, _VAE).items()}
    has_new_names = any(name.startswith("encoder.down_blocks.") for name in weights)
    conv = "encoder.down_blocks.{}.resnets.0.conv1" if has_new_names else "encoder.down.{}.block.0.conv1"
    levels = [_size(weights, f"{conv.format(i)}.weight", 0) for i in range(4)]
    config = AutoencoderKL.load_config(SD15 / "vae") | {"block_out_channels": levels}
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(config)
    if has_new_names:
        return filled(vae, {new_name(name): tensor for name, tensor in weights.items()})
    return filled(vae, convert_ldm_vae_checkpoint(_part(tensors, _VAE), config))


def _text_encoder(tensors: Mapping[str, Tensor]) -> CLIPTextModel:
    weights = {_text_name(name): tensor for name, tensor in _part(tensors, _TEXT).items()}
    words = "embeddings.token_embedding.weight"
    first = "encoder.layers.0.mlp.fc1.weight"
    layers = sum(name.endswith(".mlp.fc1.weight") for name in weights)
    config = CLIPTextConfig.from_pretrained(
        SD15 / "text_encoder",
        local_files_only=True,
        vocab_size=_size(weights, words, 0, most=2**17),
        hidden_size=_size(weights, words, 1),
        intermediate_size=_size(weights, first, 0, most=2**13),
        num_hidden_layers=min(layers, 48),
    )
    model = new_text_encoder(config)
    filled(inner(model), weights)
    return model


def _text_name(name: str) -> str:
    """transformers' name of a text encoder's weight; some checkpoints leave `text_model` out."""
    return name.removeprefix(_TEXT).removeprefix("text_model.")

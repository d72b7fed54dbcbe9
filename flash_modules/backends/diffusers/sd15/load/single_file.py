"""Stable Diffusion 1.5 from one checkpoint file, with the names of the original code."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from .....animatediff.noise_schedule import MODELSPEC, Prediction
from .....files.tensor_file import Tensors, read_tensors, some

Model = TypeVar("Model", bound=nn.Module)
Parts = tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel, Prediction]
"""U-Net, VAE, text encoder, and what the U-Net predicts."""

NEEDED = "FLASH and AnimateDiff work on Stable Diffusion 1.5: load an SD 1.5 checkpoint."

SD15 = Path(__file__).parent / "configs"
"""Configs of Stable Diffusion 1.5; widths are read from the file."""

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer."

_OTHER_FILES = (
    ("conditioner.embedders.", "Stable Diffusion XL"),
    (f"{_UNET}label_emb.", "Stable Diffusion XL"),
    ("cond_stage_model.model.", "Stable Diffusion 2"),
    (f"{_UNET}joint_blocks.", "Stable Diffusion 3"),
    (f"{_UNET}double_blocks.", "Flux"),
    ("control_model.", "a ControlNet"),
    ("lora_unet_", "a LoRA"),
)


def read_checkpoint(path: Path) -> Parts:
    """The parts of a checkpoint. Raises ValueError, with what the file is, for others.

    A U-Net predicts velocity if the file says so: in its header (modelspec), or by a tensor named `v_pred`.
    """
    tensors, metadata = read_tensors(path)
    _check_sd15(tensors, path.name)
    says_v = metadata.get("modelspec.prediction_type") == MODELSPEC["v_prediction"] or "v_pred" in tensors
    prediction: Prediction = "v_prediction" if says_v else "epsilon"
    try:
        return _unet(tensors), _vae(tensors), _text_encoder(tensors), prediction
    except KeyError as error:
        raise ValueError(
            f"{path.name} is incomplete: it lacks {error.args[0]}, or that does not fit. Download it again. "
            f"{NEEDED}"
        ) from error


def read_vae(path: Path) -> AutoencoderKL:
    """The VAE of a checkpoint, or of a file that holds nothing else. Raises ValueError for others."""
    tensors, _ = read_tensors(path)
    if not any(name.startswith(_VAE) for name in tensors):
        tensors = {_VAE + name: tensor for name, tensor in tensors.items()}
    latent = tensors.get(f"{_VAE}decoder.conv_in.weight")
    if latent is None or latent.shape[1] != 4:
        raise ValueError(
            f"{path.name} holds no VAE of Stable Diffusion 1.5 (with 4 latent channels): give such a file, "
            "or an SD 1.5 checkpoint."
        )
    try:
        return _vae(tensors)
    except KeyError as error:
        raise ValueError(
            f"{path.name} is incomplete: it lacks {error.args[0]}, or that does not fit. Download it again."
        ) from error


def _check_sd15(tensors: Mapping[str, Tensor], file_name: str) -> None:
    for mark, what in _OTHER_FILES:
        if any(key.startswith(mark) for key in tensors):
            raise ValueError(f"{file_name} is {what}. {NEEDED}")
    for prefix, part in ((_UNET, "U-Net"), (_VAE, "VAE"), (_TEXT, "text encoder")):
        if not any(key.startswith(prefix) for key in tensors):
            raise ValueError(f"{file_name} holds no {part} (it holds {some(tensors)}). {NEEDED}")
    first_conv = tensors.get(f"{_UNET}input_blocks.0.0.weight")
    if first_conv is None or first_conv.shape[1] != 4:
        found = "no first convolution" if first_conv is None else f"{first_conv.shape[1]} input channels"
        raise ValueError(f"The U-Net of {file_name} has {found}, not 4 input channels. {NEEDED}")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _unet(tensors: Mapping[str, Tensor]) -> UNet2DConditionModel:
    levels = [tensors[f"{_UNET}input_blocks.{i}.0.out_layers.3.weight"].shape[0] for i in (1, 4, 7, 10)]
    text_width = tensors[f"{_UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    config = UNet2DConditionModel.load_config(SD15 / "unet")
    config |= {"block_out_channels": levels, "cross_attention_dim": text_width}
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    return _filled(unet, convert_ldm_unet_checkpoint(_part(tensors, _UNET), config))


def _vae(tensors: Mapping[str, Tensor]) -> AutoencoderKL:
    levels = [tensors[f"{_VAE}encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(4)]
    config = AutoencoderKL.load_config(SD15 / "vae") | {"block_out_channels": levels}
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(config)
    return _filled(vae, convert_ldm_vae_checkpoint(_part(tensors, _VAE), config))


def _text_encoder(tensors: Mapping[str, Tensor]) -> CLIPTextModel:
    weights = {_text_name(name): tensor for name, tensor in _part(tensors, _TEXT).items()}
    vocabulary, width = weights["embeddings.token_embedding.weight"].shape
    config = CLIPTextConfig.from_pretrained(
        SD15 / "text_encoder",
        local_files_only=True,
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=sum(name.endswith(".mlp.fc1.weight") for name in weights),
    )
    model = CLIPTextModel(config)
    _filled(getattr(model, "text_model", model), weights)  # an own module before transformers 5.6
    return model


def _text_name(name: str) -> str:
    """transformers' name of a text encoder's weight; some checkpoints leave `text_model` out."""
    return name.removeprefix(_TEXT).removeprefix("text_model.")


def _filled(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """The model with these weights in fp32. Raises KeyError with the name of one that is not right."""
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise KeyError(name)
    model.load_state_dict({name: weights[name].float() for name in expected}, assign=True)
    return model

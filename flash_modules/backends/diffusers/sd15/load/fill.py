"""U-Nets, VAEs and text encoders of Stable Diffusion 1.5, filled with weights that were read as data."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from ...fill import Model, filled_from, read_model, read_settings, read_weights, telling

_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of the VAE's attention, in files from before 2023."""
_PARTS = re.compile(
    r"(?:^|(?<=\.))(?:conv_in|conv_out|conv_norm_out|time_embedding|down_blocks|mid_block|up_blocks"
    r"|encoder|decoder|quant_conv|post_quant_conv)\."
)
_TEXT_MODEL = re.compile(r"(?:^|(?<=\.))text_model\.")
_TEXT_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
"""What a text encoder is built by. Others of transformers' settings fetch code."""


def read_unet_or_vae(folder: Path, kind: Callable[..., Model], file: Path | None = None) -> Model:
    """A model in diffusers' layout, its weights from that file if one is given.

    Raises ValueError if its settings or weights are odd, or do not fit.
    """
    return read_model(folder, kind, _PARTS, rename=new_name, file=file)


def read_text_encoder(folder: Path) -> CLIPTextModel:
    """A text encoder in transformers' layout, likewise."""
    config = read_settings(folder, _TEXT_SETTINGS)
    with telling(f"{folder / 'config.json'} describes no text encoder"):
        model = new_text_encoder(CLIPTextConfig(**config))
    weights = read_weights(folder, _TEXT_MODEL, None)
    filled_from(
        folder, inner(model), {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    )
    return model


def new_text_encoder(config: CLIPTextConfig) -> CLIPTextModel:
    """A text encoder without weights, which takes no memory."""
    with torch.device("meta"):
        model = CLIPTextModel(config)
    embeddings: Any = inner(model).embeddings
    embeddings.position_ids = torch.arange(config.max_position_embeddings).unsqueeze(0)  # in no file
    return model


def inner(model: CLIPTextModel) -> nn.Module:
    """The part that has the weights: an own module before transformers 5.6."""
    return getattr(model, "text_model", model)


def new_name(name: str) -> str:
    """The name that a weight of a VAE has today."""
    return ".".join(
        _OLD_NAMES.get(word, word) if ".attentions." in name else word for word in name.split(".")
    )

"""CogVideoX-5b-I2V from a folder in diffusers' layout. Nothing is fetched."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5Config, T5EncoderModel

from .....files.json_file import read_json
from .....files.tensor_file import short
from .....flexiact.action_file import BASE
from ...fill import Model, filled_from, read_model, read_settings, read_weights, telling

_PARTS = ("transformer", "vae", "text_encoder")
_TRANSFORMER = re.compile(
    r"(?:^|(?<=\.))(?:patch_embed|time_embedding|ofs_embedding|transformer_blocks|norm_final|norm_out|proj_out)\."
)
_VAE = re.compile(r"(?:^|(?<=\.))(?:encoder|decoder|quant_conv|post_quant_conv)\.")
_T5 = re.compile(r"(?:^|(?<=\.))(?:shared|encoder)\.")
_T5_SETTINGS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "layer_norm_epsilon",
    "feed_forward_proj",
)
"""What a text encoder is built by. Others of transformers' settings fetch code."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The one shape of videos that a base makes: its learned positions know no other."""

    frames: int
    width: int
    height: int
    latent_frames: int
    channels: int

    @property
    def latents(self) -> tuple[int, int, int, int]:
        """Of a video's latents: (F, C, H, W)."""
        return self.latent_frames, self.channels, self.height // 8, self.width // 8


@dataclass(frozen=True)
class BaseFiles:
    """Where a base model lies. The place and its settings were looked at; no weights were read."""

    path: Path
    shape: Shape
    max_text: int
    """Tokens of a prompt, 226."""
    text_width: int
    """Channels of a text embedding, 4096."""

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"


def find_base(path: Path) -> BaseFiles:
    """A base model's files. Raises ValueError if a part is missing or it is not CogVideoX-5b-I2V."""
    missing = [part for part in _PARTS if not (path / part / "config.json").is_file()]
    if missing:
        raise ValueError(
            f"{path} is not a model in diffusers' layout: there is no config.json in {', '.join(missing)}. "
            f"Give the folder of {BASE} that holds transformer, vae, text_encoder and tokenizer."
        )
    config = read_json(path / "transformer" / "config.json")
    if found := other_model(config):
        raise ValueError(f"{path.name} is {found}. FlexiAct works on {BASE}: give that one's folder.")
    with telling(f"{path / 'transformer' / 'config.json'} is damaged: download it again"):
        shape, max_text = _shape(config), int(config.get("max_text_seq_length", 226))
        text_width = int(config.get("text_embed_dim", 4096))
    return BaseFiles(path, shape, max_text, text_width)


def other_model(config: Mapping[str, Any]) -> str | None:
    """What a transformer is, by its config, if it is not CogVideoX-5b-I2V."""
    found = None
    if config.get("_class_name") != "CogVideoXTransformer3DModel":
        found = f"a model with a {short(config.get('_class_name'))}"
    elif config.get("patch_size_t") is not None or config.get("ofs_embed_dim") is not None:
        found = "CogVideoX 1.5, which sees time in other steps"
    elif config.get("in_channels") == 16:
        kind = "5b" if config.get("use_rotary_positional_embeddings") else "2b"
        found = f"CogVideoX-{kind}, which makes videos from text and takes no picture"
    elif config.get("in_channels") != 32:
        found = f"a CogVideoX with {short(config.get('in_channels'))} input channels, as for inpainting"
    elif not all(config.get(f"use_{kind}_positional_embeddings") for kind in ("rotary", "learned")):
        found = "a CogVideoX without learned and rotary positions together"
    return found


_MOST = 1024
"""Latent pixels of a side, and frames: more than any CogVideoX makes."""


def _shape(config: Mapping[str, Any]) -> Shape:
    """The shape of its videos. Raises ValueError for sizes of no model."""
    for name in ("sample_frames", "sample_width", "sample_height", "temporal_compression_ratio"):
        if not 1 <= int(config.get(name, 1)) <= _MOST:
            raise ValueError(f"`{name}` is {short(config[name])}")
    frames, step = int(config.get("sample_frames", 49)), int(config.get("temporal_compression_ratio", 4))
    return Shape(
        frames=frames,
        width=8 * int(config.get("sample_width", 90)),
        height=8 * int(config.get("sample_height", 60)),
        latent_frames=(frames - 1) // step + 1,
        channels=int(config["in_channels"]) // 2,
    )


def load_transformer(files: BaseFiles, dtype: torch.dtype) -> CogVideoXTransformer3DModel:
    """The transformer, on the CPU. Raises ValueError if it is damaged or incomplete."""
    return _still(
        read_model(files.path / "transformer", CogVideoXTransformer3DModel, _TRANSFORMER, dtype=dtype)
    )


def load_vae(files: BaseFiles, dtype: torch.dtype) -> AutoencoderKLCogVideoX:
    """The VAE, on the CPU. Raises ValueError if it is damaged or incomplete."""
    return _still(read_model(files.path / "vae", AutoencoderKLCogVideoX, _VAE, dtype=dtype))


def load_text_encoder(files: BaseFiles, dtype: torch.dtype) -> T5EncoderModel:
    """The text encoder, on the CPU. Raises ValueError if it is damaged or incomplete."""
    folder = files.path / "text_encoder"
    with telling(f"{folder / 'config.json'} describes no text encoder"), torch.device("meta"):
        model = T5EncoderModel(T5Config(**read_settings(folder, _T5_SETTINGS)))
    weights = read_weights(folder, _T5)
    tied = {"encoder.embed_tokens.weight": weights["shared.weight"]} if "shared.weight" in weights else {}
    return _still(filled_from(folder, model, weights | tied, dtype))


def _still(model: Model) -> Model:
    return model.eval().requires_grad_(False)

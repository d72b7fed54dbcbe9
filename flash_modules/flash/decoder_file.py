"""Detail decoder files: the added layers, and what tells the VAE that they belong to."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..files.json_file import parse_json
from ..files.tensor_file import (
    Tensors,
    check_numbers,
    fingerprint,
    read_tensors,
    short,
    some,
    write_tensors,
)
from .detail_decoder import DetailDecoder, DetailDecoderConfig

KIND = "decoder"
FORMAT = "1"
"""Of decoder files, whatever that of action files is."""
SIGNATURE = ("encoder.conv_out.weight", "decoder.conv_out.weight")
"""Weights that every VAE of Stable Diffusion's layout has under these names, in all programs."""

_PREFIX, _VAE = "detail_decoder.", "vae."
_OWN_ENTRIES = ("format", "flash.format", "flash.kind", "flash.vae", "flash.decoder")
_CLOSE = 0.01
"""Relative distance of signatures; bf16 rounds by up to 0.004. A hash would tell fp16 and bf16 apart."""


@dataclass(frozen=True, kw_only=True)
class DetailWeights:
    """A detail decoder's weights, checked."""

    name: str
    config: DetailDecoderConfig
    tensors: Tensors
    """Under the names of `DetailDecoder`."""
    signature: Tensors
    """The SIGNATURE of the VAE that it was trained with."""
    vae_name: str
    header: Mapping[str, str] = field(default_factory=dict)
    """Further entries of the file's header."""

    @property
    def summary(self) -> str:
        branches = [name for name in ("warping", "attention") if getattr(self.config, name)]
        levels = len(self.config.channels)
        return f"{self.name}: {levels} levels, {' and '.join(branches)}, for {self.vae_name}"


def write_detail_decoder(path: Path, weights: DetailWeights) -> None:
    """Write a detail decoder as safetensors."""
    tensors = {_PREFIX + name: tensor for name, tensor in weights.tensors.items()}
    tensors |= {_VAE + name: weights.signature[name] for name in SIGNATURE}
    metadata = {
        **weights.header,
        "format": "pt",
        "flash.format": FORMAT,
        "flash.kind": KIND,
        "flash.vae": json.dumps({"name": weights.vae_name, "sha256": fingerprint(weights.signature)}),
        "flash.decoder": json.dumps(asdict(weights.config)),
    }
    write_tensors(path, tensors, metadata)


def read_detail_decoder(path: Path) -> DetailWeights:
    """Read and check a detail decoder. Raises ValueError with what is wrong and what was expected."""
    tensors, metadata = read_tensors(path)
    if metadata.get("flash.kind") != KIND:
        raise ValueError(
            f"{path.name} is not a FLASH detail decoder (its header does not say so): choose a file that "
            "`train-decoder` wrote."
        )
    if metadata.get("flash.format") != FORMAT:
        raise ValueError(
            f"{path.name} is a detail decoder of format {short(metadata.get('flash.format'))}, and this pack "
            f"reads format {FORMAT}: update ComfyUI-FLASH."
        )
    check_numbers(tensors, path.name)
    config, vae_name = _parse_header(metadata, path.name)
    own = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}
    signature = {name: tensors[_VAE + name] for name in SIGNATURE if _VAE + name in tensors}
    wanted = DetailDecoder(config, device="meta").state_dict()
    unfit = [name for name in wanted.keys() | own.keys() if _shape(wanted, name) != _shape(own, name)]
    if unfit or len(signature) < len(SIGNATURE):
        missing = some(unfit or [_VAE + name for name in SIGNATURE if name not in signature])
        raise ValueError(f"{path.name} is damaged: it does not hold what its header says ({missing}).")
    return DetailWeights(
        name=path.stem,
        config=config,
        tensors=own,
        signature=signature,
        vae_name=vae_name,
        header={name: value for name, value in metadata.items() if name not in _OWN_ENTRIES},
    )


def _shape(tensors: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _parse_header(metadata: Mapping[str, str], file_name: str) -> tuple[DetailDecoderConfig, str]:
    try:
        settings = parse_json(metadata["flash.decoder"])
        config = DetailDecoderConfig(**{**settings, "channels": tuple(settings["channels"])})
        vae_name = parse_json(metadata["flash.vae"])["name"]
        if not isinstance(vae_name, str):
            raise TypeError("the VAE's name is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file_name} has a damaged header ({short(error)}): download it again.") from error
    return config, vae_name


def check_vae(weights: DetailWeights, vae_state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless these are the weights of the VAE that the decoder was trained with."""
    for name, wanted in weights.signature.items():
        found = vae_state.get(name)
        if found is None or found.shape != wanted.shape or _distance(found, wanted) > _CLOSE:
            raise ValueError(
                f"The detail decoder '{weights.name}' was trained with another VAE, {weights.vae_name}: use "
                "that one, or decode without it."
            )


def _distance(found: Tensor, wanted: Tensor) -> float:
    found, wanted = found.float().cpu(), wanted.float().cpu()
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))

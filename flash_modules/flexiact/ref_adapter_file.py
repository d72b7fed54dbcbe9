"""RefAdapter files: low-rank parts of every attention's projections. Ours are LoRAs that ComfyUI loads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ..files.model_card import model_spec
from ..files.plain_weights import plain_weights
from ..files.tensor_file import Tensors, check_numbers, read_tensors, short, some, write_tensors
from .action_file import BASE
from .card import ref_adapter_card

KIND = "ref-adapter"
FORMAT = "1"
ALPHA = 32.0
"""Of the released adapter, whose file does not say it; its rank is 64."""
STRENGTH = 0.7
"""At which the released code uses it."""

Part = Literal["q", "k", "v", "out"]
PARTS: tuple[Part, ...] = get_args(Part)

_RELEASED = re.compile(r"transformer_blocks\.(\d+)\.attn1\.processor\.lora_(q|k|v|proj)\.(down|up)\.weight")
_BEGINS = re.compile(r"(?:^|(?<=\.))transformer_blocks\.\d+\.attn1\.processor\.")
_OURS = re.compile(r"diffusion_model\.blocks\.(\d+)\.(q|k|v|attn_out)\.(?:lora_(down|up)\.weight|(alpha))")
_PARTS: dict[str, Part] = {"q": "q", "k": "k", "v": "v", "proj": "out", "attn_out": "out"}
_MAX_BYTES = 4 * 2**30
_OWN_ENTRIES = ("format", "flash.format", "flash.kind", "flash.base", "flash.licence")

Place = tuple[int, Part]
"""A projection: its layer, and which of the four."""


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A change of a weight (C, C): alpha / rank * up @ down."""

    down_RC: Tensor
    up_CR: Tensor
    alpha: float

    def delta(self, strength: float) -> Tensor:
        """What is added to the weight, (C, C) in fp32, on the device of the tensors."""
        scale = strength * self.alpha / len(self.down_RC)
        return scale * (self.up_CR.float() @ self.down_RC.float())


@dataclass(frozen=True, kw_only=True)
class RefAdapter:
    """What lets CogVideoX keep a picture's look while the layout moves away from the clip's."""

    name: str
    parts: Mapping[Place, LowRank]
    """All of PARTS in all layers, layer by layer."""
    base: str = BASE
    licence: str = ""
    header: Mapping[str, str] = field(default_factory=dict)
    """Further entries of the file's header, kept as they are."""

    @property
    def num_layers(self) -> int:
        return len(self.parts) // len(PARTS)

    @property
    def width(self) -> int:
        return self.parts[0, "q"].down_RC.shape[1]

    @property
    def summary(self) -> str:
        rank = len(self.parts[0, "q"].down_RC)
        return f"{self.name}: rank {rank}, width {self.width}, for {self.num_layers} layers of {self.base}"


def check_adapter_fits(adapter: RefAdapter, *, num_layers: int, width: int) -> None:
    """Raise ValueError unless the adapter is for a model of so many layers, and so wide."""
    if (adapter.num_layers, adapter.width) != (num_layers, width):
        raise ValueError(
            f"The RefAdapter '{adapter.name}' is for {adapter.num_layers} layers of width {adapter.width}, "
            f"and this model has {num_layers} of width {width}: load {adapter.base}, or another RefAdapter."
        )


def read_ref_adapter(path: Path) -> RefAdapter:
    """Read and check a RefAdapter, ours or the released one. Nothing in it is run.

    Raises ValueError with what is wrong and what was expected.
    """
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"{path.name} is larger than 4 GiB, but a RefAdapter has 130 to 270 MB: choose another file."
        )
    tensors, metadata = read_tensors(path)
    _check_kind(path.name, tensors, metadata)
    weights, _ = plain_weights(tensors, _BEGINS, path.name)
    check_numbers(weights, path.name)
    parts = dict(_parts(weights, path.name))
    widths = {low_rank.down_RC.shape[1] for low_rank in parts.values()}
    if len(widths) > 1:
        raise ValueError(
            f"{path.name} is damaged: its layers have the widths {some(map(str, widths))}, and should have "
            "one. Download it again."
        )
    return RefAdapter(
        name=path.stem,
        parts=parts,
        licence=metadata.get("flash.licence", ""),
        header={name: value for name, value in metadata.items() if name not in _OWN_ENTRIES},
    )


def _check_kind(file_name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Raise ValueError unless it is a RefAdapter, by its header or names, and for the base that we know."""
    kind, base = metadata.get("flash.kind", KIND), metadata.get("flash.base", BASE)
    if kind != KIND or not any(".lora_" in name for name in tensors):
        raise ValueError(
            f"{file_name} is not a RefAdapter (it holds {some(tensors)}): choose "
            "refnetlora_step40000_model.pt, or what `convert` made of it."
        )
    if base != BASE:
        raise ValueError(
            f"{file_name} is a RefAdapter for {short(base)}, and this pack knows {BASE}: choose another."
        )
    if metadata.get("flash.format", FORMAT) != FORMAT:
        raise ValueError(
            f"{file_name} is a RefAdapter of format {short(metadata['flash.format'])}, and this pack reads "
            f"format {FORMAT}: update ComfyUI-FLASH."
        )


def _parts(weights: Mapping[str, Tensor], file_name: str) -> Iterator[tuple[Place, LowRank]]:
    found: dict[Place, Tensors] = {}
    for name, tensor in weights.items():
        if match := _RELEASED.fullmatch(name) or _OURS.fullmatch(name):
            layer, part, *role = match.groups()
            found.setdefault((int(layer), _PARTS[part]), {})[next(filter(None, role))] = tensor
    for layer in range(max(1, len({layer for layer, _ in found}))):
        for part in PARTS:
            yield (
                (layer, part),
                _low_rank(found.get((layer, part), {}), f"{part} of layer {layer}", file_name),
            )


def _low_rank(tensors: Mapping[str, Tensor], place: str, file_name: str) -> LowRank:
    down, up, alpha = tensors.get("down"), tensors.get("up"), tensors.get("alpha", torch.tensor(ALPHA))
    if down is None or up is None:
        raise ValueError(f"{file_name} is incomplete: it lacks {place}. Download it again.")
    if down.ndim != 2 or down.shape != up.T.shape or alpha.numel() != 1 or not down.numel():
        raise ValueError(
            f"{file_name} is damaged: the shapes of {place} are {tuple(down.shape)} and {tuple(up.shape)}, "
            "which do not belong together. Download it again."
        )
    return LowRank(down_RC=down, up_CR=up, alpha=float(alpha))


def write_ref_adapter(path: Path, adapter: RefAdapter) -> None:
    """Write a RefAdapter as a LoRA with the names of ComfyUI's CogVideoX, whole or not at all."""
    tensors: Tensors = {}
    for (layer, part), low_rank in adapter.parts.items():
        name = f"diffusion_model.blocks.{layer}.{'attn_out' if part == 'out' else part}"
        tensors[f"{name}.lora_down.weight"] = low_rank.down_RC
        tensors[f"{name}.lora_up.weight"] = low_rank.up_CR
        tensors[f"{name}.alpha"] = torch.tensor(low_rank.alpha)
    metadata = {
        **model_spec("cogvideox-5b-i2v/lora", adapter.name),
        **ref_adapter_card(),
        **adapter.header,
        "format": "pt",
        "flash.format": FORMAT,
        "flash.kind": KIND,
        "flash.base": adapter.base,
        "flash.licence": adapter.licence,
    }
    write_tensors(path, tensors, metadata)

"""Action files of FlexiAct: tokens for every layer, learned from one clip. Ours, and the released ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..files.model_card import model_spec
from ..files.plain_weights import plain_weights
from ..files.tensor_file import Tensors, check_numbers, read_tensors, short, some, write_tensors
from .card import transfer_card

KIND = "transfer"
FORMAT = "1"
"""Of these files, whatever that of FLASH's actions is."""
BASE = "CogVideoX-5b-I2V"
"""The model that FlexiAct was made for."""

_OURS = re.compile(r"blocks\.(\d+)\.tokens")
_BEGINS = re.compile(r"(?:^|(?<=\.))transformer_blocks\.\d+\.attn1\.processor\.")
_RELEASED = re.compile(r"transformer_blocks\.(\d+)\.attn1\.processor\.motion_inversion_tokens")
_MAX_BYTES = 2 * 2**30
_OWN_ENTRIES = (
    "format",
    "flash.format",
    "flash.kind",
    "flash.base",
    "flash.layers",
    "flash.tokens",
    "flash.width",
    "flash.steps",
    "flash.prompt",
    "flash.clip_sha256",
    "flash.licence",
)


@dataclass(frozen=True, kw_only=True)
class TransferAction:
    """An action that was learned from one clip, for any picture."""

    name: str
    tokens_LMC: Tensor
    """For each layer, tokens of the model's width, in the file's number type."""
    base: str = BASE
    steps: int | None = None
    """Of training; None if the file does not say."""
    prompt: str = ""
    """The caption of the clip: prompts for pictures should resemble it."""
    clip_sha256: str = ""
    licence: str = ""
    header: Mapping[str, str] = field(default_factory=dict)
    """Further entries of the file's header, kept as they are."""

    @property
    def summary(self) -> str:
        layers, tokens, width = self.tokens_LMC.shape
        said = f' "{self.prompt}"' if self.prompt else ""
        after = f", after {self.steps} steps" if self.steps is not None else ""
        return (
            f"{self.name}:{said} {tokens} tokens of width {width} for {layers} layers of {self.base}{after}"
        )


def check_fits(action: TransferAction, *, num_layers: int, width: int) -> None:
    """Raise ValueError unless the action was learned on a model of so many layers, and so wide."""
    layers, _, channels = action.tokens_LMC.shape
    if (layers, channels) != (num_layers, width):
        raise ValueError(
            f"The action '{action.name}' is for {layers} layers of width {channels}, and this model has "
            f"{num_layers} of width {width}: load {action.base}, or another action."
        )


def is_transfer_action(path: Path) -> bool:
    """Whether a file says, in its header or by its names, that it is such an action. Damaged ones do not."""
    try:
        tensors, metadata = read_tensors(path)
    except ValueError:
        return False
    return metadata.get("flash.kind") == KIND or _holds_released(tensors)


def _holds_released(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.endswith(".motion_inversion_tokens") for name in tensors)


def read_transfer_action(path: Path) -> TransferAction:
    """Read and check an action file, ours or a released one. Nothing in it is run.

    Raises ValueError with what is wrong and what was expected.
    """
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        raise ValueError(
            f"{path.name} is larger than 2 GiB, but an action learned from one clip has 60 to 120 MB: choose "
            "another file."
        )
    tensors, metadata = read_tensors(path)
    if metadata.get("flash.kind") == KIND:
        return _read_ours(tensors, metadata, path)
    if _holds_released(tensors):
        weights, _ = plain_weights(tensors, _BEGINS, path.name)
        return TransferAction(name=path.stem, tokens_LMC=_stacked(weights, _RELEASED, path.name))
    raise ValueError(_not_an_action(path.name, tensors, metadata))


def _not_an_action(file_name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    if metadata.get("flash.kind") in ("compact", "standalone"):
        return (
            f"{file_name} is an action of FLASH, learned from several clips for Stable Diffusion 1.5: on "
            f"{BASE} use one that was learned from one clip with FlexiAct."
        )
    if any(".lora_" in name for name in tensors):
        return f"{file_name} is a RefAdapter or a LoRA, not an action: choose a file with action tokens."
    return (
        f"{file_name} is not an action of FlexiAct (it holds {some(tensors)}): choose a released .pt file, "
        "or one that this pack wrote."
    )


def _stacked(tensors: Mapping[str, Tensor], names: re.Pattern[str], file_name: str) -> Tensor:
    """Tokens (L, M, C), layer by layer. Raises ValueError if some are missing or differ in shape."""
    found = {int(match[1]): tensor for name, tensor in tensors.items() if (match := names.fullmatch(name))}
    missing = set(range(max(1, len(found)))) - found.keys()
    if missing:
        raise ValueError(
            f"{file_name} is incomplete: it lacks the tokens of layer {min(missing)}. Download it again."
        )
    check_numbers({f"layer {layer}": tensor for layer, tensor in found.items()}, file_name)
    shapes = {tuple(tensor.shape) for tensor in found.values()}
    (shape,) = shapes if len(shapes) == 1 else ((),)
    if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[0] != 1):
        raise ValueError(
            f"{file_name} is damaged: the tokens of all layers should have one shape, such as (226, 3072), "
            f"and they have {some(map(str, shapes))}. Download it again."
        )
    return torch.stack([found[layer].reshape(shape[-2:]) for layer in sorted(found)])


def _read_ours(tensors: Tensors, metadata: Mapping[str, str], path: Path) -> TransferAction:
    if metadata.get("flash.format") != FORMAT:
        raise ValueError(
            f"{path.name} is an action of format {short(metadata.get('flash.format'))}, and this pack reads "
            f"format {FORMAT}: update ComfyUI-FLASH."
        )
    base = metadata.get("flash.base", "")
    if base != BASE:
        raise ValueError(
            f"{path.name} was learned on {short(base) or 'a model that it does not name'}, and this pack "
            f"performs only what was learned on {BASE}: choose another action."
        )
    tokens_LMC = _stacked(tensors, _OURS, path.name)
    told = tuple(metadata.get(f"flash.{entry}", "") for entry in ("layers", "tokens", "width"))
    if told != tuple(map(str, tokens_LMC.shape)):
        found = " x ".join(map(str, tokens_LMC.shape))
        raise ValueError(
            f"{path.name} is incomplete: its header tells of {' x '.join(map(short, told))} (layers, tokens, "
            f"width), and it holds {found}. Download it again."
        )
    return TransferAction(
        name=path.stem,
        tokens_LMC=tokens_LMC,
        base=base,
        steps=_number(metadata.get("flash.steps", ""), path.name),
        prompt=metadata.get("flash.prompt", ""),
        clip_sha256=metadata.get("flash.clip_sha256", ""),
        licence=metadata.get("flash.licence", ""),
        header={name: value for name, value in metadata.items() if name not in _OWN_ENTRIES},
    )


def _number(text: str, file_name: str) -> int | None:
    if text and not re.fullmatch(r"\d{1,9}", text):
        raise ValueError(f"{file_name} has a damaged header (steps: {short(text)}): download it again.")
    return int(text) if text else None


def write_transfer_action(path: Path, action: TransferAction) -> None:
    """Write an action as safetensors with a header, whole or not at all."""
    layers, tokens, width = map(str, action.tokens_LMC.shape)
    metadata = {
        **model_spec("cogvideox-5b-i2v/flexiact-action", action.name),
        **transfer_card(),
        **action.header,
        "format": "pt",
        "flash.format": FORMAT,
        "flash.kind": KIND,
        "flash.base": action.base,
        "flash.layers": layers,
        "flash.tokens": tokens,
        "flash.width": width,
        "flash.steps": "" if action.steps is None else str(action.steps),
        "flash.prompt": action.prompt,
        "flash.clip_sha256": action.clip_sha256,
        "flash.licence": action.licence,
    }
    write_tensors(path, {f"blocks.{i}.tokens": t for i, t in enumerate(action.tokens_LMC)}, metadata)

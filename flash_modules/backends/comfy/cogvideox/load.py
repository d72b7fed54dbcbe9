"""CogVideoX-5b-I2V from the files that people have: single ones, or the parts of a diffusers folder."""

import re
from collections.abc import Mapping
from pathlib import Path

import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....files.tensor_file import read_tensors, some
from .corrections import corrected
from .kinds import check_weights
from .names import core_names

PRECISIONS = {"default": None, "fp8_e4m3fn": torch.float8_e4m3fn}
"""How weights are kept: as they are in the file, or in half of the memory of bf16."""

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})(\.safetensors)")


def load_cogvideox(
    path: Path, dtype: torch.dtype | None = None, *, disable_dynamic: bool = False
) -> ModelPatcher:
    """CogVideoX-5b-I2V, corrected, from a file of it or one of its parts; weights in `dtype` or as they are.

    Raises ValueError if the file is damaged, another model, or not all of it.
    """
    files = parts(path)
    for file in files:
        read_tensors(file)  # says what is wrong with a file, and runs nothing in it
    weights: dict[str, Tensor] = {}
    for file in files:
        read, metadata = comfy.utils.load_torch_file(str(file), return_metadata=True)
        weights.update(comfy.utils.convert_old_quants(read, "", metadata=metadata)[0])
    weights = core_names(weights)
    check_weights(weights, path.name)
    given = set(weights)  # loading takes them out
    model = comfy.sd.load_diffusion_model_state_dict(
        weights, model_options={} if dtype is None else {"dtype": dtype}, disable_dynamic=disable_dynamic
    )
    _check_whole(given, model.model.diffusion_model.state_dict(), path.name)
    model.cached_patcher_init = (load_cogvideox, (path, dtype))
    return corrected(model)


def parts(path: Path) -> list[Path]:
    """All files of the model that this one is of. Raises ValueError if one is missing."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    stem, count, suffix = found[1], int(found[3]), found[4]
    files = [path.with_name(f"{stem}-{i:05}-of-{count:05}{suffix}") for i in range(1, count + 1)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(
            f"{path.name} is one of {count} parts, and {some(missing)} is not beside it: download it, too."
        )
    return files


def is_later_part(name: str) -> bool:
    """Whether it is a part of a model, and not the first."""
    found = _PART.fullmatch(name)
    return found is not None and int(found[2]) > 1


def _check_whole(given: set[str], wanted: Mapping[str, Tensor], file_name: str) -> None:
    """Raise ValueError unless the model got every weight, and the file has no block after a gap."""
    missing = {name for name in wanted if name.endswith((".weight", ".bias"))} - given
    blocks = {name.split(".")[1] for name in given if name.startswith("blocks.")}
    if missing or len(blocks) > len({name.split(".")[1] for name in wanted if name.startswith("blocks.")}):
        which = some(missing) if missing else "a whole block"
        raise ValueError(f"{file_name} is not the whole model, {which} is missing: download it again.")

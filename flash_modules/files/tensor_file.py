"""Tensor files: safetensors and PyTorch's own, by their content and not by their name."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .pickle_file import read_pickle
from .pickle_storages import Damaged, Unsafe
from .whole import whole

Tensors = dict[str, Tensor]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_SAFETENSORS_DAMAGE = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)
_NUMBERS = (torch.float32, torch.float16, torch.bfloat16)

_MAX_TENSORS = 100_000
"""More than any model has; that many take seconds and gigabytes to list."""
_MAX_DOTS, _MAX_NAME = 8, 500
"""Of the names of dictionaries in dictionaries, and letters of a whole name: beyond any model's."""


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file on the CPU. No code in the file is run.

    Weights stay in the file until they are used, so reading takes next to no memory. Raises ValueError when
    the file is damaged, of another format, or a pickle of anything but tensors.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path.name} in {path.parent}: check the name and the folder.")
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
    elif start.startswith((_ZIP, _PICKLE)):
        tensors, metadata = _read_pytorch(path), {}
    else:
        raise ValueError(
            f"{path.name} is neither a safetensors nor a PyTorch file: it is empty, damaged, or a web page "
            "or link that was saved in its place. Download it again."
        )
    if len(tensors) > _MAX_TENSORS:
        raise ValueError(f"{path.name} holds {len(tensors)} tensors: it is not a model file.")
    if not tensors:
        raise ValueError(f"{path.name} holds no named tensors: it is not a model file. Choose another one.")
    return tensors, metadata


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) > _MAX_TENSORS:
                raise ValueError(f"{len(names)} tensors are more than any model has")
            if max(map(len, names), default=0) > _MAX_NAME:
                raise ValueError(f"a tensor's name has more than {_MAX_NAME} letters")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except _SAFETENSORS_DAMAGE as error:
        raise ValueError(
            f"{path.name} is damaged or cut short ({short(error)}): download it again."
        ) from error


def _read_pytorch(path: Path) -> Tensors:
    if path.suffix == ".safetensors":  # other programs would believe the name
        raise ValueError(f"{path.name} is a PyTorch file under a wrong name: let its name end in .ckpt.")
    try:
        content = read_pickle(path)
    except Unsafe as error:
        raise ValueError(
            f"{path.name} was not opened: it is damaged, or holds Python objects beside its tensors "
            f"({error}), and reading those could run code. Download it again, or use a .safetensors version."
        ) from error
    except Damaged as error:
        raise ValueError(
            f"{path.name} is damaged or cut short ({short(error)}): download it again."
        ) from error
    return dict(islice(_named_tensors(content, "", set()), _MAX_TENSORS + 1))


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path.name} is damaged or cut short ({short(error)}): download it again.")


def _named_tensors(content: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a dictionary and of the dictionaries in it, the latter under joined names.

    Each dictionary counts once, or a small file could name very many.
    """
    if not isinstance(content, dict) or id(content) in seen or prefix.count(".") > _MAX_DOTS:
        return
    seen.add(id(content))
    for name, value in content.items():
        full = f"{prefix}{name}"[:_MAX_NAME]
        if isinstance(value, Tensor):
            yield full, value
        elif isinstance(value, dict):
            yield from _named_tensors(value, prefix if name == "state_dict" else f"{full}.", seen)


def short(error: object) -> str:
    """An error's own words, on one line, for a message."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole(path) as draft:
        try:
            save_file(contiguous, draft, dict(metadata))
        except SafetensorError as error:  # no OSError, though it tells of one
            told = re.search(r"os error (\d+)", str(error))
            number = int(told[1]) if told else errno.EIO
            raise OSError(number, os.strerror(number)) from error
        plain_file = draft.with_name("plain")
        plain_file.touch()
        shutil.copymode(plain_file, draft)  # safetensors shuts out everybody else


def check_numbers(tensors: Mapping[str, Tensor], file_name: str) -> None:
    """Raise ValueError if any value is NaN or infinite, or no plain floating-point number."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NUMBERS:
            raise ValueError(
                f"{file_name} stores {name} as {str(tensor.dtype).removeprefix('torch.')}, which FLASH "
                "cannot use: take an fp16, bf16 or fp32 version of it."
            )
        # The extremes are NaN if any value is; looking at each value alone takes 25 times as long.
        if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise ValueError(
                f"{file_name} is broken: {name} holds values that are not finite (NaN or infinity). "
                "Use another copy, or an earlier checkpoint of the training."
            )


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, the same for fp32 and fp16 files of equal weights, in any order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to("cpu", torch.float16).contiguous()
        digest.update(f"{name}{list(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    names = sorted(names)
    shown = [name if len(name) <= 120 else f"{name[:117]}..." for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

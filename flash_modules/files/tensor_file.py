"""Tensor files: safetensors and PyTorch's own, by their content and not by their name."""

import errno
import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .whole import whole

Tensors = dict[str, Tensor]

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_NUMBERS = (torch.float32, torch.float16, torch.bfloat16)

_DAMAGE = (
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    EOFError,
    OSError,
)
"""What torch.load raises on damaged pickles, found by flipping bits."""


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
        tensors, metadata = _read_pytorch(path, is_zip=start.startswith(_ZIP)), {}
    else:
        raise ValueError(
            f"{path.name} is neither a safetensors nor a PyTorch file: it is empty, damaged, or a web page "
            "or link that was saved in its place. Download it again."
        )
    if not tensors:
        raise ValueError(f"{path.name} holds no named tensors: it is not a model file. Choose another one.")
    return tensors, metadata


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is damaged or cut short ({error}): download it again.") from error


def _read_pytorch(path: Path, *, is_zip: bool) -> Tensors:
    if path.suffix == ".safetensors":  # torch.load would believe the name
        raise ValueError(f"{path.name} is a PyTorch file under a wrong name: let its name end in .ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} was not opened: it is damaged, or holds Python objects beside its tensors, and "
            "reading those could run code. Download it again, or use a .safetensors version of it."
        ) from error
    except _DAMAGE as error:
        raise ValueError(f"{path.name} is damaged or cut short ({error}): download it again.") from error
    return dict(_named_tensors(content))


def _named_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a dictionary and of the dictionaries in it, the latter under joined names."""
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield str(name), value
        elif isinstance(value, dict):
            prefix = "" if name == "state_dict" else f"{name}."
            yield from ((f"{prefix}{inner}", t) for inner, t in value.items() if isinstance(t, Tensor))


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
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

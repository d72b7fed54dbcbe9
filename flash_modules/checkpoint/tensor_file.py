"""Tensor files: safetensors and PyTorch's own, by their content and not by their name."""

import hashlib
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file on the CPU. No code in the file is run.

    Raises ValueError when the file is damaged, of another format, or a pickle of anything but tensors.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path.name} in {path.parent}: check the name and the folder.")
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return _read_pytorch(path), {}
    raise ValueError(
        f"{path.name} is neither a safetensors nor a PyTorch file (it starts with {start[:8]!r}): "
        "it is damaged or something else under this name. Download it again."
    )


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is damaged or cut short ({error}): download it again.") from error


def _read_pytorch(path: Path) -> Tensors:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.name} holds Python objects beside its tensors, and reading those could run code, so it was not "
            "opened: use a .safetensors version of it."
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is damaged or cut short ({error}): download it again.") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise ValueError(f"{path.name} holds no named tensors: it is not a model file.")
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; an interruption leaves the old file, or none, but never half of one."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".flash-") as folder:
        draft = Path(folder) / "draft.safetensors"
        save_file(contiguous, draft, dict(metadata))
        os.replace(draft, path)


def check_finite(tensors: Mapping[str, Tensor], file_name: str) -> None:
    """Raise ValueError if any value is NaN or infinite."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
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
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def some(names: Iterable[str]) -> str:
    """The first few of many names, for a message."""
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

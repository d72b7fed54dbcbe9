"""Storages and tensors of PyTorch's files, as views of the file after it is known that they lie in it."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

_MAX_SPREAD, _MAX_SPREAD_TOTAL = 2**28, 2**32
"""Bytes of one tensor, and of all, beyond those of the file, whose values they repeat (strides of 0)."""


class Damaged(ValueError):
    """The file is not what it should be."""


class Unsafe(ValueError):
    """The file asks for more than plain tensors."""


def no_storage(key: str) -> memoryview:
    raise Damaged("a tensor is where none should be")


@dataclass(frozen=True)
class Name:
    """A function, class or constant, by its name alone."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, in the file."""

    values: Tensor


DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}


def _dtype_of(kind: Any) -> torch.dtype:
    name = kind.name.rpartition(".")[2] if isinstance(kind, Name) else ""
    if name not in DTYPES:
        raise Damaged("a storage is of no known kind")
    return DTYPES[name]


def _parse_id(pid: Any) -> tuple[torch.dtype, str, int]:
    """Dtype, key and count of numbers of a storage, as a pickle names it."""
    if isinstance(pid, tuple) and pid[:1] == ("module",):
        raise Unsafe("a module")
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
        raise Damaged("a storage has no proper name")
    _, kind, key, _, count = pid[:5]
    if (
        not isinstance(key, str)
        or type(count) is not int
        or count < 0
        or (len(pid) > 5 and pid[5] is not None)
    ):
        raise Damaged("a storage has no proper name")
    return _dtype_of(kind), key, count


class Storages:
    """Storages by their names, out of the file's bytes."""

    def __init__(self, part: Callable[[str], memoryview], num_bytes: int) -> None:
        self._part = part
        self._made: dict[str, Storage] = {}
        self._left = 2 * num_bytes + _MAX_SPREAD_TOTAL
        """Bytes that tensors may still have."""

    def get(self, pid: Any) -> Any:
        dtype, key, count = _parse_id(pid)
        if key not in self._made:
            self._made[key] = Storage(_values(self._part(key), dtype))
        values = self._made[key].values
        if values.dtype != dtype or values.numel() < count:
            raise Damaged("a storage is cut short")
        return self._made[key]

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> Any:
        """A view of a storage, which must lie in it."""
        if not isinstance(storage, Storage):
            raise Damaged("a tensor has no values")
        values = storage.values if dtype is None else storage.values.view(dtype)
        _check_counts(size, stride, (offset,))
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if prod(size) and last >= values.numel():
            raise Damaged("a tensor lies beyond its values")
        self._check_size(prod(size) * values.itemsize, values.nbytes)
        if not prod(size):
            return torch.empty(size, dtype=values.dtype)
        return values.as_strided(size, stride, values.storage_offset() + offset)

    def _check_size(self, num_bytes: int, stored: int) -> None:
        self._left -= num_bytes
        if num_bytes > max(stored, _MAX_SPREAD) or self._left < 0:
            raise Damaged("tensors repeat few values very often")


class StorageSizes(Storages):
    """Notes how large storages are, and makes none."""

    def __init__(self) -> None:
        super().__init__(no_storage, 0)
        self.found: dict[str, int] = {}

    def get(self, pid: Any) -> Any:
        dtype, key, count = _parse_id(pid)
        if self.found.setdefault(key, count * dtype.itemsize) != count * dtype.itemsize:
            raise Damaged("a storage has two sizes")

    def tensor(self, *_: Any) -> Any:
        return None


def _values(part: memoryview, dtype: torch.dtype) -> Tensor:
    count = len(part) // dtype.itemsize
    if not count:
        return torch.empty(0, dtype=dtype)
    values = torch.frombuffer(part[: count * dtype.itemsize], dtype=torch.uint8)
    if values.data_ptr() % dtype.itemsize:  # in legacy files, which leave no gaps
        values = values.clone()
    return values.view(dtype)


def _check_counts(size: Any, stride: Any, offset: Any) -> None:
    for numbers in (size, stride, offset):
        if not isinstance(numbers, tuple) or len(numbers) > 16:
            raise Damaged("a tensor's shape is odd")
        if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise Damaged("a tensor's shape is odd")
    if len(size) != len(stride) or prod(n for n in size if n) >= 2**48:
        raise Damaged("a tensor's shape is odd")

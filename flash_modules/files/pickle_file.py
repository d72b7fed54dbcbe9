"""PyTorch's own files, zip and legacy, read as data: a small machine for the operations that tensors need.

`torch.load` gives room to whatever numbers a file names, before it looks whether there is so much in it. Here
nothing is made but views of the file, after it is known that they lie in it.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MAX_OPERATIONS = 400_000
"""Of one pickle, and entries that it copies; that of a whole Stable Diffusion has 40,000."""
_MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip's list of entries; that of a whole Stable Diffusion has 100,000."""
_MAX_SPREAD, _MAX_SPREAD_TOTAL = 2**28, 2**32
"""Bytes of one tensor, and of all, beyond those of the file, whose values they repeat (strides of 0)."""
_MAGIC = 0x1950A86A20F9469CFC6C

_DAMAGE = (
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    ArithmeticError,
    MemoryError,
    OSError,
)
"""What reading any bytes may raise here."""


class Damaged(ValueError):
    """The file is not what it should be."""


class Unsafe(ValueError):
    """The file asks for more than plain tensors."""


def read_pickle(path: Path) -> Any:
    """What a PyTorch file holds: dictionaries, lists and numbers, and tensors that stay in the file.

    Raises Unsafe, with its name, for any function or class beyond those of plain tensors, and Damaged.
    """
    try:
        with path.open("rb") as file:
            # Private, so that nobody who changes a tensor changes the file.
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if data[:4] == b"PK\x03\x04":
            return _read_zip(path, data)
        return _read_legacy(data)
    except (Damaged, Unsafe):
        raise
    except _DAMAGE as error:
        raise Damaged(f"{type(error).__name__}: {error}"[:200]) from error


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    _check_directory(data)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        (pickled,) = (
            name for name in entries if name.rpartition("/")[2] == "data.pkl" and name.count("/") < 2
        )
        root = pickled.removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise Unsafe("a TorchScript program")
        order = f"{root}byteorder"
        if order in entries and _stored(data, entries[order]).tobytes() != b"little":
            raise Damaged("its numbers are stored in another order of bytes")
        if zlib.crc32(_stored(data, entries[pickled])) != entries[pickled].CRC:
            raise Damaged("the checksum of its list of tensors is wrong")

        def storage(key: str) -> memoryview:
            return _stored(data, entries[f"{root}data/{key}"])

        return _Machine(_stored(data, entries[pickled]), _Storages(storage, len(data))).run()


def _check_directory(data: mmap.mmap) -> None:
    """Raise Damaged for a zip whose mere list of entries would fill the memory."""
    tail = data[-(2**17) :]
    for mark, place, form in ((b"PK\x05\x06", 12, "<I"), (b"PK\x06\x06", 40, "<Q")):
        if (end := tail.rfind(mark)) >= 0:
            (size,) = struct.unpack_from(form, tail, end + place)
            if size > _MAX_DIRECTORY and size != 2**32 - 1:
                raise Damaged("it lists more entries than any model has")


def _stored(data: mmap.mmap, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, where they lie in the file. Compressed ones could be of any size."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise Damaged("its entries are compressed, as PyTorch never does")
    mark, name_length, extra_length = struct.unpack_from("<4s22xHH", data, entry.header_offset)
    start = entry.header_offset + 30 + name_length + extra_length
    if mark != b"PK\x03\x04" or start + entry.file_size > len(data):
        raise Damaged("an entry does not lie in the file")
    return memoryview(data)[start : start + entry.file_size]


def _read_legacy(data: mmap.mmap) -> Any:
    """Magic number, version, the writer's machine, the content, and then the storages one after the other."""
    place = 0
    for expected in (_MAGIC, 1001, None):
        machine = _Machine(memoryview(data)[place:], _Storages(_no_storage, 0))
        found = machine.run()
        if expected is not None and found != expected:
            raise Damaged("it does not begin as PyTorch's files do")
        place += machine.place
    view = memoryview(data)
    sizes = _Machine(view[place:], _Sizes())  # what it holds is known only when the storages' places are
    sizes.run()
    keys = _Machine(view[place + sizes.place :], _Storages(_no_storage, 0))
    ordered = keys.run()
    assert isinstance(sizes.storages, _Sizes)
    parts = _parts(view[place + sizes.place + keys.place :], ordered, sizes.storages.found)
    return _Machine(view[place:], _Storages(parts.__getitem__, len(data))).run()


def _parts(view: memoryview, keys: Any, sizes: Mapping[str, int]) -> dict[str, memoryview]:
    """The bytes of each storage, by its key; each is led by the count of its numbers."""
    if not isinstance(keys, list):
        raise Damaged("it has no list of storages")
    parts: dict[str, memoryview] = {}
    place = 0
    for key in keys:
        start, num_bytes = place + 8, sizes[key]
        if start + num_bytes > len(view):
            raise Damaged("its storages are cut short")
        parts[key] = view[start : start + num_bytes]
        place = start + num_bytes
    return parts


def _no_storage(key: str) -> memoryview:
    raise Damaged("a tensor is where none should be")


@dataclass(frozen=True)
class _Name:
    """A function, class or constant, by its name alone."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Numbers in a row, in the file."""

    values: Tensor


_DTYPES = {
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
    name = kind.name.rpartition(".")[2] if isinstance(kind, _Name) else ""
    if name not in _DTYPES:
        raise Damaged("a storage is of no known kind")
    return _DTYPES[name]


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


class _Storages:
    """Storages by their names, out of the file's bytes."""

    def __init__(self, part: Callable[[str], memoryview], num_bytes: int) -> None:
        self._part = part
        self._made: dict[str, _Storage] = {}
        self._left = 2 * num_bytes + _MAX_SPREAD_TOTAL
        """Bytes that tensors may still have."""

    def get(self, pid: Any) -> Any:
        dtype, key, count = _parse_id(pid)
        if key not in self._made:
            self._made[key] = _Storage(_values(self._part(key), dtype))
        values = self._made[key].values
        if values.dtype != dtype or values.numel() < count:
            raise Damaged("a storage is cut short")
        return self._made[key]

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
    ) -> Any:
        """A view of a storage, which must lie in it."""
        if not isinstance(storage, _Storage):
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


class _Sizes(_Storages):
    """Notes how large storages are, and makes none."""

    def __init__(self) -> None:
        super().__init__(_no_storage, 0)
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


_PLAIN = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        "torch.Size",
        "torch.device",
        "_codecs.encode",
        "builtins.set",
        "builtins.complex",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._tensor._rebuild_from_type_v2",
        "torch.storage.UntypedStorage",
        *(f"torch.{name}" for name in _DTYPES),
    }
)
"""All that a pickle may name. What they make is made here; none of them is called."""


def _name(module: str, name: str) -> _Name:
    full = f"{module}.{name}".replace("__builtin__.", "builtins.")
    if full.startswith("torch._utils._rebuild_") and full not in _PLAIN:
        raise Damaged(f"it holds a {full[22:60].replace('_', ' ')}, where models have plain tensors")
    if full not in _PLAIN and not (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
        raise Unsafe(full[:80])
    return _Name(full)


def _key(value: Any) -> Any:
    """A key of a dictionary: never one whose parts lie so deep that to compare them ends Python."""
    if type(value) in (str, int, float, bool, type(None), bytes, _Name):
        return value
    raise Damaged("a key is no text and no number")


class _Machine:
    """Runs a pickle, operation by operation, on a stack."""

    def __init__(self, view: memoryview, storages: _Storages) -> None:
        self._view, self.storages = view, storages
        self.place = 0
        """Bytes that are read."""
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._left = _MAX_OPERATIONS
        """Operations, and entries copied, that are still allowed."""

    def run(self) -> Any:
        """What the pickle holds."""
        while True:
            self._spend(1)
            operation = self._take(1)[0]
            if operation == _STOP:
                return self._stack.pop()
            step = _OPERATIONS.get(operation)
            if step is None:
                raise Damaged(f"operation {operation} is none that tensors need")
            step(self)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise Damaged("it has more parts than any model")

    def _take(self, count: int) -> memoryview:
        part = self._view[self.place : self.place + max(0, count)]
        if len(part) != count:
            raise Damaged("it ends too early")
        self.place += count
        return part

    def number(self, form: str) -> Any:
        """A number as it stands in the pickle."""
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def text(self, form: str) -> str:
        """A text that is led by its length."""
        return str(self._take(self.number(form)), "utf-8", "surrogatepass")

    def data(self, form: str) -> bytes:
        """Bytes that are led by their length."""
        return bytes(self._take(self.number(form)))

    def line(self) -> str:
        """Text up to the end of the line."""
        length = bytes(self._view[self.place : self.place + 256]).find(b"\n")
        if length < 0:
            raise Damaged("a name has no end")
        return str(self._take(length + 1)[:-1], "ascii")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack or (self._marks and len(self._stack) <= self._marks[-1]):
            raise Damaged("a value is missing")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise Damaged("a value is of another kind")
        return self._stack[-1]

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_marked(self) -> list[Any]:
        """The values since the last mark."""
        if not self._marks:
            raise Damaged("a mark is missing")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def pop_tuple(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def put(self, index: int) -> None:
        self._memo[index] = self.top(object)

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def add(self, values: list[Any]) -> None:
        self.top(set).update(_key(value) for value in values)

    def set_items(self, values: list[Any]) -> None:
        items = self.top(dict)
        for name, value in zip(values[::2], values[1::2], strict=True):
            items[_key(name)] = value

    def name(self, module: Any, name: Any) -> None:
        self.push(_name(str(module), str(name)))

    def persistent(self) -> None:
        self.push(self.storages.get(self.pop()))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise Damaged("what should make a value does not")
        self.push(self._make(function.name, arguments))

    def _make(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name.startswith("torch._"):
            return self._make_tensor(name.rpartition(".")[2], arguments)
        if name == "_codecs.encode":
            self._spend(len(arguments[0]))
            return arguments[0].encode("latin1")
        if name in ("torch.Size", "torch.device", "builtins.complex"):
            return arguments[0] if len(arguments) == 1 else arguments
        if name == "builtins.set":
            self._spend(len(arguments[0]) if arguments else 0)
            return {_key(value) for value in (arguments[0] if arguments else [])}
        return self._make_dictionary(name, arguments)

    def _make_tensor(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "_rebuild_from_type_v2":
            function, _, inner, _ = arguments
            if (
                not isinstance(function, _Name)
                or not isinstance(inner, tuple)
                or function.name.endswith(name)
            ):
                raise Damaged("what should make a tensor does not")
            return self._make(function.name, inner)
        if name == "_rebuild_parameter":
            return arguments[0]
        storage, offset, size, stride = arguments[:4]
        if name == "_rebuild_tensor_v3":
            dtype = getattr(torch, arguments[6].name.removeprefix("torch."), None)
            if not isinstance(dtype, torch.dtype):
                raise Damaged("a tensor is of no known kind")
            return self.storages.tensor(storage, offset, size, stride, dtype)
        return self.storages.tensor(storage, offset, size, stride)

    def _make_dictionary(self, name: str, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        last = arguments[-1] if arguments else None
        if not name.startswith("collections.") or not isinstance(last, dict | list | _Name | None):
            raise Damaged("what should make a value does not")
        if last is None or isinstance(last, _Name):
            return {}
        self._spend(len(last))
        return {_key(key): value for key, value in (last.items() if isinstance(last, dict) else last)}

    def build(self) -> None:
        """Give a value its attributes: state dictionaries have notes of versions, which nobody needs."""
        self.pop()
        if isinstance(self.top(object), _Name | Tensor):
            raise Damaged("a class or a tensor is changed")


_Step = Callable[[_Machine], object]
_STOP = ord(".")

_OPERATIONS: dict[int, _Step] = {
    0x80: lambda m: m.number("<B"),  # PROTO
    0x95: lambda m: m.number("<Q"),  # FRAME
    ord("("): lambda m: m.mark(),
    ord("0"): lambda m: m.pop(),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.push(int.from_bytes(m.data("<B"), "little", signed=True)),
    ord("G"): lambda m: m.push(m.number(">d")),
    ord("X"): lambda m: m.push(m.text("<I")),
    0x8C: lambda m: m.push(m.text("<B")),
    0x8D: lambda m: m.push(m.text("<Q")),
    ord("T"): lambda m: m.push(str(m.data("<i"), "latin1")),
    ord("U"): lambda m: m.push(str(m.data("<B"), "latin1")),
    ord("B"): lambda m: m.push(m.data("<I")),
    ord("C"): lambda m: m.push(m.data("<B")),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    0x8F: lambda m: m.push(set()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_marked())),
    0x85: lambda m: m.pop_tuple(1),
    0x86: lambda m: m.pop_tuple(2),
    0x87: lambda m: m.pop_tuple(3),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_marked()),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_marked()),
    0x90: lambda m: m.add(m.pop_marked()),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    0x94: lambda m: m.memoize(),
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: lambda m: m.name(*[m.pop(), m.pop()][::-1]),
    ord("Q"): lambda m: m.persistent(),
    ord("R"): lambda m: m.reduce(),
    0x81: lambda m: m.reduce(),  # NEWOBJ: a class makes an object as a function makes a value
    ord("b"): lambda m: m.build(),
}
"""The operations of pickle that torch.save uses, by their bytes."""

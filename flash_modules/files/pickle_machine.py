"""Pickles, run on a small machine that knows what tensors need, and calls nothing that they name."""

import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .pickle_storages import DTYPES, Damaged, Name, Storages, Unsafe

_MAX_OPERATIONS = 400_000
"""Of one pickle, and entries that it copies; that of a whole Stable Diffusion has 40,000."""

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
        *(f"torch.{name}" for name in DTYPES),
    }
)
"""All that a pickle may name. What they make is made here; none of them is called."""


def _name(module: str, name: str) -> Name:
    full = f"{module}.{name}".replace("__builtin__.", "builtins.")
    if full.startswith("torch._utils._rebuild_") and full not in _PLAIN:
        raise Damaged(f"it holds a {full[22:60].replace('_', ' ')}, where models have plain tensors")
    if full not in _PLAIN and not (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
        raise Unsafe(full[:80])
    return Name(full)


def _key(value: Any) -> Any:
    """A key of a dictionary: never one whose parts lie so deep that to compare them ends Python."""
    if type(value) in (str, int, float, bool, type(None), bytes, Name):
        return value
    raise Damaged("a key is no text and no number")


class Machine:
    """Runs a pickle, operation by operation, on a stack."""

    def __init__(self, view: memoryview, storages: Storages) -> None:
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
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
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
            if not isinstance(function, Name) or not isinstance(inner, tuple) or function.name.endswith(name):
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
        if not name.startswith("collections.") or not isinstance(last, dict | list | Name | None):
            raise Damaged("what should make a value does not")
        if last is None or isinstance(last, Name):
            return {}
        self._spend(len(last))
        return {_key(key): value for key, value in (last.items() if isinstance(last, dict) else last)}

    def build(self) -> None:
        """Give a value its attributes: state dictionaries have notes of versions, which nobody needs."""
        self.pop()
        if isinstance(self.top(object), Name | Tensor):
            raise Damaged("a class or a tensor is changed")


_Step = Callable[[Machine], object]
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

"""Ways to spoil a file: any bytes; values of settings; tensors, and what pickles and zips can claim."""

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 3, 10, 100))):
        spoiled[_place(data, draw)] ^= 1 << draw.randrange(8)
    return bytes(spoiled)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((_place(data, draw), draw.randrange(min(64, len(data))), len(data) - 1))]


def overwrite(data: bytes, draw: random.Random) -> bytes:
    """A stretch of zeros, ones, noise, or an absurd number."""
    place, length = _place(data, draw), draw.choice((1, 4, 8, 64, 1000))
    number = draw.choice((2**31 - 1, 2**32 - 1, 2**63 - 1, 2**62, 10**12, 0))
    new = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length), struct.pack("<Q", number)))
    return data[:place] + new + data[place + len(new) :]


def insert(data: bytes, draw: random.Random) -> bytes:
    place, other = _place(data, draw), _place(data, draw)
    new = draw.choice((draw.randbytes(draw.randrange(1, 40)), data[other : other + 500], b"[" * 100_000))
    return data[:place] + new + data[place:]


def delete(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + data[place + draw.choice((1, 2, 4, 100, 5000)) :]


def replace_all(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"", b"\0" * 100, draw.randbytes(500), b"<!DOCTYPE html>", data[::-1], data + data))


BYTES: tuple[Mutation, ...] = (flip_bits, flip_bits, cut, overwrite, overwrite, insert, delete, replace_all)


def _place(data: bytes, draw: random.Random) -> int:
    """Anywhere, but more often where headers are: at both ends."""
    near = min(len(data), draw.choice((100, 2000, len(data))))
    return draw.randrange(near) if draw.random() < 0.7 else len(data) - 1 - draw.randrange(near)


ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 1.5, 10**9, 10**30, float("nan"), float("inf"), "", "x", "9" * 5000),
    *([], {}, [[]], [None], [0], [64, -64], ["x"], {"a": {}}, [10**9] * 4, [64] * 1000, [[[[64]]]]),
)


def spoil_json(data: bytes, draw: random.Random) -> bytes:
    """An odd value in place of one of the values, or of all; or a name less, or one more."""
    try:
        value = json.loads(data)
    except ValueError:
        return cut(data, draw)
    kind = draw.randrange(10)
    if kind == 0 or not isinstance(value, dict) or not value:
        return json.dumps(draw.choice(ODD_VALUES)).encode()
    name = draw.choice(sorted(value))
    if kind == 1:
        value.pop(name)
    elif kind == 2:
        value[draw.choice(("auto_map", "quantization_config", "_name_or_path", "x" * 10**5))] = name
    elif kind == 3:
        value[name] = [value[name]]
    elif kind == 4:
        return b'{"' + name.encode() + b'":' + b"[" * 10**5
    else:
        value[name] = draw.choice(ODD_VALUES)
    return json.dumps(value).encode()


def spoil_tensors(tensors: dict[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """Some tensors gone, or of another name, shape or kind."""
    spoiled = dict(tensors)
    prefix = draw.choice(("", "", "", "", "module.", "unet.", "_orig_mod.", "ema.", "x" * 3000))
    for name in draw.sample(sorted(spoiled), min(len(spoiled), draw.choice((1, 1, 2, 20, 10**6)))):
        changed = draw.choice(TENSORS)(spoiled.pop(name), draw)
        if changed is not None:
            spoiled[draw.choice((name, name, name, name + ".x", "\0", name.rpartition(".")[0]))] = changed
    return {prefix + name: tensor for name, tensor in spoiled.items()}


TENSORS: tuple[Callable[[Tensor, random.Random], Tensor | None], ...] = (
    lambda t, draw: None,
    lambda t, draw: t.reshape(-1)[0].clone() if t.numel() else t,
    lambda t, draw: t.reshape(-1).clone(),
    lambda t, draw: t[None].clone(),
    lambda t, draw: t.transpose(0, -1).contiguous() if t.ndim else t,
    lambda t, draw: t[:0].clone() if t.ndim else t,
    lambda t, draw: torch.empty(draw.choice(((0,), (2**40, 0), (0, 2**40, 3), (1, 10**9, 0), (1,) * 60))),
    lambda t, draw: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
    lambda t, draw: t.to(draw.choice((torch.int8, torch.bool, torch.float64, torch.int64, torch.bfloat16))),
    lambda t, draw: t.to(torch.complex64),
    lambda t, draw: t.to(torch.float8_e4m3fn),
    lambda t, draw: torch.zeros(draw.choice(((), (1,), (7, 5), (1, 5000, 32), (1, 24, 33), (3, 3, 3, 3, 3)))),
)


def safetensors_bytes(tensors: dict[str, Tensor], metadata: dict[str, str], folder: Path) -> bytes:
    file = folder / "spoiled"
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata)
    return file.read_bytes()


def read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata() or {}  # noqa: SIM118


def spoil_header(metadata: dict[str, str], draw: random.Random) -> dict[str, str]:
    """Odd entries of a header, and odd values in its JSON."""
    spoiled = dict(metadata)
    if spoiled:
        name = draw.choice(sorted(spoiled))
        old = spoiled.pop(name)
        choices = (old[:-1], "", "[" * 10**5, "\0", "9" * 5000, json.dumps(draw.choice(ODD_VALUES)))
        if draw.random() < 0.8:
            spoiled[name] = draw.choice((*choices, *[spoil_json(old.encode() or b"0", draw).decode()] * 5))
    return spoiled


class Runs:
    """A pickle of it makes a file when it is read by something that runs what it reads."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def pickle_attacks(tensors: dict[str, Tensor], trap: Path, large: int = 10**9) -> Iterator[bytes]:
    """Files of PyTorch's kinds that claim more than they hold, or hold what is no tensor."""
    small = torch.ones(3)
    expanded = torch.ones(1).expand
    contents: list[Any] = [
        {"runs": Runs(trap), **tensors},
        {"a": expanded(10**5, 10**5)},
        {**tensors, "down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": expanded(2**33)},
        {
            **tensors,
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
            ".attention_blocks.0.pos_encoder.pe": expanded(1, 10**8, 64),
        },
        {"a": small.to_sparse()},
        {"a": small[None].to_sparse_csr()},
        {"a": torch.empty(10**6, 10**6, device="meta")},
        {"a": torch.nested.nested_tensor([small, torch.ones(5)])},
        {"a": torch.quantize_per_tensor(small, 0.1, 10, torch.quint8)},
        {"a": torch.nn.Parameter(small), "b": torch.nn.Linear(2, 2)},
        {f"{i}": expanded(2**26) for i in range(2000)},
        small,
        [small],
        {1: {2: {3: {4: {5: {6: {7: small}}}}}}},
        {"state_dict": {}, "ema_state_dict": {name: t for name, t in tensors.items()}},
        {"model_state_dict": tensors, "ema": tensors},
        {("a", "b"): small, 5: small, None: small, b"x": small},
        {"x" * 10**6: {str(i): small for i in range(1000)}},
    ]
    for content in contents:
        for is_zip in (True, False):
            buffer = io.BytesIO()
            try:  # some kinds have no legacy form
                torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
            except (RuntimeError, NotImplementedError, pickle.PicklingError):
                continue
            yield buffer.getvalue()
    for pickled in _pickles():
        yield _zipped(pickled)
        head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {}))
        yield head + pickled + pickle.dumps(["0"], 2) + struct.pack("<q", 3) + bytes(12)
    yield _zipped(b"\x80\x02}." + bytes(large), compression=zipfile.ZIP_DEFLATED)
    yield _zipped(_tensor_pickle(2**20, (2**20,), (1,)), bytes(large), compression=zipfile.ZIP_DEFLATED)
    yield _zipped(_tensor_pickle(3, (3,), (1,)), b"\0" * 12, b"big")


def _pickles() -> Iterator[bytes]:
    yield b"\x80\x02" + b"]" * 10**6 + b"a" * (10**6 - 1) + b"."
    yield b"\x80\x02" + b")" + b"\x85" * 10**6 + b"."
    yield b"\x80\x02}" + b")" + b"\x85" * 10**5 + b"K\x01s."  # a key in a hundred thousand brackets
    yield b"\x80\x02}r\xff\xff\xff\x7f."
    yield b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b"."
    yield b"\x80\x02\x8b\xff\xff\xff\x7f."
    yield b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\x00\x00."
    yield b"\x80\x02X\xff\xff\xff\x7f."
    yield b"\x80\x02T\xff\xff\xff\xff."
    yield b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R."
    yield b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R."
    yield b"\x80\x02ctorch\nFloatStorage\nJ\x00\x00\x00\x7f\x85R."
    yield b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."
    yield b"\x80\x02]q\x00" + b"(" + b"h\x00" * 1000 + b"e."
    large = b"(" + b"K\x01K\x01" * 20_000 + b"u"
    yield b"\x80\x02}" + large + b"q\x00" + b"ccollections\nOrderedDict\nh\x00\x85R" * 50_000 + b"."
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"q\x01"
    yield b"\x80\x02" + text + b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R" * 50_000 + b"."
    for count, size, stride in (
        (2**40, (2**40,), (1,)),
        (3, (2**40,), (0,)),
        (3, (10**5, 10**5), (0, 0)),
        (3, (3,), (2**62,)),
        (3, (-3,), (1,)),
        (3, (2,) * 100, (1,) * 100),
        (3, (3,), ()),
        (-3, (3,), (1,)),
        (3, (10**18,), (1,)),
    ):
        yield _tensor_pickle(count, size, stride)


def _tensor_pickle(count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """{"a": a tensor}, of whatever size."""

    def number(n: int) -> bytes:
        return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)

    def row(numbers: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, numbers)) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += number(count) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + row(size) + row(stride)
    return b"\x80\x02}X\x01\x00\x00\x00a" + tensor + b"\x89ccollections\nOrderedDict\n)RtRs."


def _zipped(
    pickled: bytes, storage: bytes = b"\0" * 12, order: bytes = b"little", compression: int = 0
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()

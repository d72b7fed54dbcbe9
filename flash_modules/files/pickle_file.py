"""PyTorch's own files, zip and legacy, read as data.

`torch.load` gives room to whatever numbers a file names, before it looks whether there is so much in it. Here
nothing is made but views of the file.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .pickle_machine import Machine
from .pickle_storages import Damaged, Storages, StorageSizes, Unsafe, no_storage

_MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip's list of entries; that of a whole Stable Diffusion has 100,000."""
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

        return Machine(_stored(data, entries[pickled]), Storages(storage, len(data))).run()


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
        machine = Machine(memoryview(data)[place:], Storages(no_storage, 0))
        found = machine.run()
        if expected is not None and found != expected:
            raise Damaged("it does not begin as PyTorch's files do")
        place += machine.place
    view = memoryview(data)
    sizes = Machine(view[place:], StorageSizes())  # what it holds is known only when the storages' places are
    sizes.run()
    keys = Machine(view[place + sizes.place :], Storages(no_storage, 0))
    ordered = keys.run()
    assert isinstance(sizes.storages, StorageSizes)
    parts = _parts(view[place + sizes.place + keys.place :], ordered, sizes.storages.found)
    return Machine(view[place:], Storages(parts.__getitem__, len(data))).run()


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

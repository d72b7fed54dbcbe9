"""MP4 and MOV files that claim more frames than there can be: FFmpeg would take memory for all of them.

ISO/IEC 14496-12, 8.7.3 (`stsz`) and 8.8.8 (`trun`). A file of 4 kB that says 50 million took 6 GB.
"""

import struct
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

MOST_SAMPLES = 2**22
"""Of all tracks together, where sizes do not take room in the file: a day of video with sound."""
_MOST_BOXES = 2**20
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_OF_EACH_SAMPLE = 0x100, 0x200, 0x400, 0x800
"""Flags of `trun`: a duration, a size, flags, an offset of every sample."""


def claims_too_much(file: BinaryIO) -> bool:
    """Whether more frames are claimed than can be there; False for files of another kind."""
    boxes, samples = 0, 0
    pending = [(0, file.seek(0, 2), False)]
    while pending:
        start, end, sound = pending.pop()
        found = list(islice(_boxes(file, start, end), _MOST_BOXES))
        boxes += len(found)
        sound = sound or any(kind == b"hdlr" and _bytes(file, at + 8, 4) == b"soun" for kind, at, _ in found)
        pcm = sound and any(kind == b"stts" and _is_pcm(file, at) for kind, at, _ in found)
        pending += [(at, stop, sound) for kind, at, stop in found if kind in _PARENTS]
        samples += sum(
            _claimed(file, *box) for box in found if box[0] == b"trun" or (box[0] == b"stsz" and not pcm)
        )
        if boxes >= _MOST_BOXES or samples > MOST_SAMPLES:
            return True
    return False


def _is_pcm(file: BinaryIO, start: int) -> bool:
    """Whether every value of a sound is a sample; FFmpeg then counts chunks of them."""
    return struct.unpack(">III", _bytes(file, start + 4, 12))[::2] == (1, 1)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, beginning and end of what is in each box; ends at what is no box."""
    while start + 8 <= end:
        length, kind, long = struct.unpack(">I4sQ", _bytes(file, start, 16))
        head = 8
        if length == 1:
            length, head = long, 16
        stop = end if length == 0 else start + length
        if stop < start + head or not kind.isascii():
            return
        yield kind, start + head, min(stop, end)
        start = stop


def _claimed(file: BinaryIO, kind: bytes, start: int, end: int) -> int:
    """Samples that a box claims without room for them in itself."""
    flags, first, second = struct.unpack(">III", _bytes(file, start, 12))
    if kind == b"stsz":
        count, room = second, 0 if first else 4  # `first` is the size of all, or 0
    else:
        count, room = first, 4 * sum(bool(flags & flag) for flag in _OF_EACH_SAMPLE)
    return count if room == 0 or count * room > end - start else 0


def _bytes(file: BinaryIO, start: int, count: int) -> bytes:
    """Bytes of the file, with zeros for those beyond its end."""
    file.seek(start)
    return file.read(count).ljust(count, b"\0")

"""What a plain decode from the start gives of a video, beside what its container says."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

from . import colours
from .containers import Unusable
from .footage import SLACK, Footage, Size


@dataclass
class _Decode:
    """What a decode from the start has given."""

    times: list[float] = field(default_factory=list)
    size: Size | None = None
    changed: tuple[float, Size] | None = None
    """When the size changed, and to what."""
    interlaced: bool = False
    curve: int = 0
    peak: float = 0.0


def checked(footage: Footage, frames: Iterable[tuple[float, Any]]) -> Footage:
    """What of the footage can be used, given all its frames with their times, decoded from the start."""
    start = footage.times[0]
    decode = _decode(start, frames)
    if not decode.times:
        raise Unusable("no frame of it can be read")
    end = decode.changed[0] if decode.changed else footage.end
    stated = [time for time in footage.times if time < end - SLACK]
    late = bisect_left(stated, decode.times[0] - SLACK)
    lost = _lost(stated[late:], decode.times)
    total = len(lost) + len(decode.times)
    if lost and (lost[-1] > decode.times[-1] or len(decode.times) < 0.9 * total):
        raise Unusable(
            f"it is damaged: {len(decode.times)} of its {total} frames can be read, and the first lost one "
            f"comes {lost[0] - start:.1f} s after its start"
        )
    return replace(
        footage,
        times=tuple(sorted([*decode.times, *lost])),
        end=end,
        interlaced=decode.interlaced,
        peak=decode.peak or footage.peak,
        notes=(*footage.notes, *_notes(decode, start, late, lost)),
    )


def check_frame(seconds: float, frame: Any) -> None:
    """Raise Unusable if the decoder says that the frame is damaged."""
    if frame.is_corrupt:
        raise Unusable(f"it is damaged {seconds:.1f} s after its start")


def _decode(start: float, frames: Iterable[tuple[float, Any]]) -> _Decode:
    """Look at all frames, up to a change of size. Raises Unusable at one that is damaged."""
    seen = _Decode()
    for time, frame in frames:
        size = frame.width, frame.height
        seen.size = seen.size or size
        if size != seen.size:
            seen.changed = time, size
            break
        check_frame(time - start, frame)
        if seen.times and time <= seen.times[-1]:
            since = seen.times[-1] - start
            raise Unusable(f"its clock jumps back {since:.1f} s after its start: convert it to mp4")
        seen.times.append(time)
        seen.interlaced |= frame.interlaced_frame
        if frame.color_trc in colours.NAMES:
            seen.curve, seen.peak = frame.color_trc, max(seen.peak, colours.peak(frame))
    return seen


def _lost(stated: Sequence[float], decoded: Sequence[float]) -> list[float]:
    """Times at which the container has a frame and the decoder gave none, and at which one is missed.

    Pictures that are stored and never shown, and second fields, leave no hole.
    """
    gap = median(after - before for before, after in pairwise(decoded)) if len(decoded) > 1 else 0.0
    lost = []
    for time in stated:
        after = bisect_left(decoded, time - SLACK)
        if after == len(decoded):
            missed = time - decoded[-1] > 0.5 * gap
        else:
            missed = decoded[after] > time + SLACK and decoded[after] - decoded[after - 1] > 1.5 * gap
        if missed:
            lost.append(time)
    return lost


def _notes(decode: _Decode, start: float, late: int, lost: Sequence[float]) -> Iterator[str]:
    """What a person should know: `late` frames are left out at the start, `lost` ones are not there."""
    if decode.changed and decode.size:
        time, size = decode.changed
        before, after = (f"{width}x{height}" for width, height in (decode.size, size))
        yield (
            f"its size changes from {before} to {after} {time - start:.1f} s after its start: it is taken "
            "up to there"
        )
    if late:
        yield f"its first {late} frames need others that were cut away: they are left out"
    if lost:
        total, since = len(lost) + len(decode.times), lost[0] - start
        yield (
            f"{len(lost)} of its {total} frames are lost, the first {since:.1f} s after its start: the next "
            "one stands in"
        )
    if decode.interlaced:
        yield "it is interlaced: its frames are deinterlaced"
    if decode.curve:
        yield f"it is HDR ({colours.NAMES[decode.curve]}): its colours are brought to BT.709"

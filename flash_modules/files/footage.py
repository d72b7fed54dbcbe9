"""What a clip's file holds, as it is shown."""

from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height."""

SLACK = 1e-3
"""Seconds that a time may be off by rounding, in containers that count milliseconds."""


@dataclass(frozen=True)
class Footage:
    """What a file holds, as it is shown: upright, with square pixels."""

    times: tuple[float, ...]
    """Seconds at which each frame is first shown."""
    end: float
    """Seconds at which the last frame is taken away."""
    size: Size
    rotation: int
    """Degrees, counterclockwise, by which the stored pictures are turned to stand upright."""
    mirrored: bool = False
    """Whether the turned pictures are then mirrored, left to right."""
    interlaced: bool = False
    """Whether frames hold two moments, in alternating rows, and are deinterlaced."""
    peak: float = 1000.0
    """Brightest luma in cd/m², where the clip is HDR."""
    notes: tuple[str, ...] = ()
    """What was done to it, or is lost, that a person should know."""

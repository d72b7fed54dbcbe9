"""Round-ended strokes: what people and things are drawn from."""

import math
from dataclasses import dataclass

import numpy as np

from .looks import Color
from .skeleton import Array

BACKGROUND, ACTOR, PARTNER, THING = range(4)
"""Labels in masks."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A stroke from a start to an end in every frame, as thick as its two radii.

    In body heights, as seen by the camera: to the right, up. `depth_F` grows towards the viewer; the parts of
    one group are drawn together, at the depth of the group's first part, with one outline around them.
    """

    group: str
    start_F2: Array
    end_F2: Array
    radius: tuple[float, float]
    depth_F: Array
    color: Color
    label: int
    texture: str = "plain"
    outlined: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A part's stroke in one frame, in pixels: x to the right, y down. Plain numbers, which are quick."""

    x: float
    y: float
    along_x: float
    along_y: float
    """Unit vector from the start to the end."""
    length: float
    radius: tuple[float, float]

    def box(self, size: int, margin: float) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the pixels that it can touch."""
        end_x, end_y = self.x + self.along_x * self.length, self.y + self.along_y * self.length
        reach = max(self.radius) + margin
        left, top = math.floor(min(self.x, end_x) - reach), math.floor(min(self.y, end_y) - reach)
        right, bottom = math.ceil(max(self.x, end_x) + reach), math.ceil(max(self.y, end_y) + reach)
        return max(left, 0), max(top, 0), min(right, size), min(bottom, size)

    def coordinates(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Along the stroke from its start, and across it, in pixels."""
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        return dx * self.along_x + dy * self.along_y, dy * self.along_x - dx * self.along_y

    def place(self, along: Array, across: Array) -> tuple[Array, Array]:
        """The inverse of `coordinates`."""
        x = self.x + along * self.along_x - across * self.along_y
        return x, self.y + along * self.along_y + across * self.along_x


def placed(start: Array, end: Array, radius: tuple[float, float]) -> Placed:
    """A stroke between two points."""
    (x, y), (end_x, end_y) = start.tolist(), end.tolist()
    length = math.hypot(end_x - x, end_y - y)
    along = ((end_x - x) / length, (end_y - y) / length) if length > 1e-3 else (1.0, 0.0)
    return Placed(x=x, y=y, along_x=along[0], along_y=along[1], length=length, radius=radius)

"""Strokes to pixels, with the flow and the label of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .looks import Color, Look
from .parts import Part, Placed, placed
from .skeleton import Array, floats

_INK: Color = (0.1, 0.08, 0.1)
_OUTLINES = {"outlined": 1.0, "cartoon": 1.5}
"""Widths in pixels of a picture of 128."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A camera in every frame."""

    scale_F: Array
    """Pixels of a body height."""
    center_F2: Array
    """The middle of the picture, to the right and up, in body heights."""
    size: int

    def pixels(self, points_F2: Array) -> Array:
        """Where points lie in the picture."""
        offset_F2 = (points_F2 - self.center_F2) * self.scale_F[:, None] * floats([1, -1])
        return floats(offset_F2 + self.size / 2)


class Brush:
    """Draws the parts of one clip in one look."""

    def __init__(self, parts: Sequence[Part], shot: Shot, look: Look) -> None:
        self.parts, self.shot, self.look = parts, shot, look
        self.outline = _OUTLINES.get(look.style, 0.0) * shot.size / 128
        starts, ends = (
            [shot.pixels(getattr(part, name)) for part in parts] for name in ("start_F2", "end_F2")
        )
        self.frames = [
            [
                placed(start[f], end[f], (part.radius[0] * scale, part.radius[1] * scale))
                for part, start, end in zip(parts, starts, ends, strict=True)
            ]
            for f, scale in enumerate(shot.scale_F)
        ]
        angle = np.deg2rad(look.light_from)
        self.light = float(np.cos(angle)), float(np.sin(angle))

    def paint(self, frame: int, pixels_HW3: Array, flow_HW2: Array | None, mask_HW: Array) -> None:
        """Draw one frame over a background, in place, and the flow to the next frame where there is one."""
        strokes = self.frames[frame]
        later = self.frames[frame + 1] if flow_HW2 is not None else strokes
        for group in self._groups(frame):
            if self.outline:
                for i in group:
                    if self.parts[i].outlined:
                        self._stroke(strokes[i], i, self.outline, pixels_HW3, _INK)
            for i in group:
                self._fill(strokes[i], later[i], i, pixels_HW3, flow_HW2, mask_HW)

    def _groups(self, frame: int) -> list[list[int]]:
        """Indices of parts, farthest group first."""
        groups: dict[str, list[int]] = {}
        for i, part in enumerate(self.parts):
            groups.setdefault(part.group, []).append(i)
        return sorted(groups.values(), key=lambda group: float(self.parts[group[0]].depth_F[frame]))

    def _window(self, stroke: Placed, margin: float) -> tuple[tuple[slice, slice], Array, Array] | None:
        left, top, right, bottom = stroke.box(self.shot.size, margin)
        if left >= right or top >= bottom:
            return None
        x = np.arange(left, right, dtype=np.float32)[None, :] + 0.5
        y = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        return (slice(top, bottom), slice(left, right)), x, y

    def _stroke(self, stroke: Placed, i: int, grow: float, pixels_HW3: Array, color: Color) -> None:
        window = self._window(stroke, grow + 1)
        if window is None:
            return
        where, x, y = window
        distance, *_ = _distance(stroke, x, y)
        _blend(pixels_HW3, where, 0.5 + grow - distance, floats(color))

    def _fill(
        self, stroke: Placed, later: Placed, i: int, pixels_HW3: Array, flow_HW2: Array | None, mask_HW: Array
    ) -> None:
        window = self._window(stroke, 1)
        if window is None:
            return
        where, x, y = window
        distance, along, across, radius = _distance(stroke, x, y)
        color = self._color(self.parts[i], stroke, along, across, radius)
        _blend(pixels_HW3, where, 0.5 - distance, color)
        inside = distance < 0
        mask_HW[where][inside] = self.parts[i].label
        if flow_HW2 is not None:
            new_x, new_y = _carried(stroke, later, along, across)
            np.copyto(flow_HW2[..., 0][where], new_x - x, where=inside)
            np.copyto(flow_HW2[..., 1][where], new_y - y, where=inside)

    def _color(self, part: Part, stroke: Placed, along: Array, across: Array, radius: Array) -> Array:
        color = floats(part.color)
        if part.texture != "plain":
            amount = _texture(part.texture, along, across, stroke)[..., None]
            other = np.float32(0.93) if color.mean() < 0.6 else color * np.float32(0.4)
            color = color * (1 - amount) + other * amount
        if self.look.style in ("shaded", "cartoon", "alien"):
            color = color * self._shade(stroke, along, across, radius)[..., None]
        return floats(color)

    def _shade(self, stroke: Placed, along: Array, across: Array, radius: Array) -> Array:
        """Lambert's law on a round limb, in two steps for cartoons."""
        over = along - _between(along, 0, stroke.length)
        nx = (over * stroke.along_x - across * stroke.along_y) / radius
        ny = (over * stroke.along_y + across * stroke.along_x) / radius
        facing = nx * self.light[0] - ny * self.light[1]
        if self.look.style == "cartoon":
            return floats(_between(0.93 + (facing + 0.25) * 2, 0.78, 1.0))
        depth = np.sqrt(_between(1 - nx * nx - ny * ny, 0, 1))
        return floats(0.55 + 0.28 * depth + 0.3 * facing)


def _distance(stroke: Placed, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """To the stroke's rim (negative inside), along and across its axis, and its radius there."""
    along, across = stroke.coordinates(x, y)
    inside = _between(along, 0, stroke.length)
    first, last = stroke.radius
    radius = first + (last - first) * inside / max(stroke.length, 1e-3)
    over = along - inside
    return np.sqrt(over * over + across * across) - radius, along, across, radius


def _carried(stroke: Placed, later: Placed, along: Array, across: Array) -> tuple[Array, Array]:
    """Where points of a stroke lie when it has moved: stretched along its axis, round ends as they were."""
    stretch = later.length / stroke.length if stroke.length > 1e-3 else 1.0
    growth = sum(later.radius) / sum(stroke.radius)
    on_axis = _between(along, 0, stroke.length)
    return later.place(on_axis * stretch + (along - on_axis) * growth, across * growth)


def _blend(pixels_HW3: Array, where: tuple[slice, slice], amount_HW: Array, color: Array) -> None:
    """Mix in the color by amounts, cut off below 0 and above 1."""
    old = pixels_HW3[where]
    old += _between(amount_HW, 0, 1)[..., None] * (color - old)


def _between(values: Array, low: float, high: float) -> Array:
    """np.clip, in a third of the time on small arrays."""
    return np.minimum(np.maximum(values, np.float32(low)), np.float32(high))


def _texture(kind: str, along: Array, across: Array, stroke: Placed) -> Array:
    """How much of the second colour, between 0 and 1; it sticks to the stroke."""
    period = max(stroke.radius) * 0.8
    u, v = along / period, across / period
    if kind == "striped":
        wave = np.sin(2 * np.pi * u)
    elif kind == "dotted":
        wave = np.cos(2 * np.pi * u) + np.cos(2 * np.pi * v) - 0.7
    else:
        wave = np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v) * 2
    return floats(_between(0.5 + 2 * wave, 0, 1))

"""Places behind the actors: pictures that repeat to the sides, so that a camera can follow a runner."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .looks import Color
from .skeleton import Array, floats

HORIZON = 0.62
"""Where the ground begins, in heights of the picture from its top."""
GROUND = 0.86
"""Where feet stand, likewise."""
WIDTH = 2.0
"""Width of the repeating picture, in widths of the frame."""


class _Canvas:
    """A picture being painted; coordinates run from 0 to WIDTH and from 0 to 1, y down."""

    def __init__(self, size: int) -> None:
        y, x = np.mgrid[0:size, 0 : int(size * WIDTH)].astype(np.float32) / size
        self.x, self.y, self.size = x, y, size
        self.pixels = np.zeros((*x.shape, 3), np.float32)

    def gradient(self, top: float, bottom: float, first: Color, last: Color) -> None:
        rows = slice(round(top * self.size), round(bottom * self.size))
        t = np.clip((self.y[rows, :1] - top) / max(bottom - top, 1e-3), 0, 1)[..., None]
        self.pixels[rows] = floats(first) * (1 - t) + floats(last) * t

    def box(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        rows, columns, away_x, away_y = self._around(x, y, width / 2, height / 2)
        inside = (np.abs(away_x) < width / 2) & (np.abs(away_y) < height / 2)
        self.pixels[rows, columns] += inside[..., None] * (floats(color) - self.pixels[rows, columns])

    def disc(self, x: float, y: float, radius: float, color: Color, squash: float = 1.0) -> None:
        rows, columns, away_x, away_y = self._around(x, y, radius, radius * squash)
        amount = np.clip(0.5 - (np.hypot(away_x, away_y / squash) - radius) * self.size, 0, 1)[..., None]
        self.pixels[rows, columns] += amount * (floats(color) - self.pixels[rows, columns])

    def _around(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Array, Array]:
        """Rows and columns of a place, and how far they are from its middle."""
        columns = np.arange(int((x - width) * self.size) - 1, int((x + width) * self.size) + 2)
        rows = np.arange(int((y - height) * self.size) - 1, int((y + height) * self.size) + 2)
        rows = rows[(rows >= 0) & (rows < self.size)]
        away_x = (columns / self.size - x).astype(np.float32)[None, :]
        away_y = (rows / self.size - y).astype(np.float32)[:, None]
        return rows[:, None], (columns % self.pixels.shape[1])[None, :], away_x, away_y

    def hills(self, level: float, height: float, waves: tuple[int, ...], phase: float, color: Color) -> None:
        angle = 2 * np.pi * self.x / WIDTH
        top = level - height * sum(np.sin(n * angle + phase * n) / n**0.5 for n in waves) / len(waves)
        self._mix(np.clip(0.5 + (self.y - top) * self.size, 0, 1), floats(color))

    def _mix(self, amount: Array, color: Array) -> None:
        self.pixels += amount.astype(np.float32)[..., None] * (color - self.pixels)


def scene_pixels(scene: str, seed: int, size: int) -> Array:
    """The place as a picture (size, WIDTH * size, 3) in [0, 1]."""
    rng = np.random.default_rng(seed)
    canvas = _Canvas(size)
    _PAINT[scene](canvas, rng)
    tint = 1 + rng.normal(0, 0.04, 3)
    return np.clip(canvas.pixels * tint, 0, 1).astype(np.float32)


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(value * factor, 1.0) for value in color)
    return red, green, blue


def _one_of(rng: np.random.Generator, *colors: Color) -> Color:
    return _shade(colors[rng.integers(len(colors))], rng.uniform(0.9, 1.08))


def _beach(canvas: _Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(0, 0.48, _one_of(rng, (0.45, 0.72, 0.95), (0.98, 0.72, 0.5)), (0.9, 0.93, 0.96))
    canvas.disc(rng.uniform(0, WIDTH), rng.uniform(0.1, 0.3), 0.07, (1.0, 0.93, 0.65))
    canvas.gradient(0.48, HORIZON + 0.04, (0.1, 0.45, 0.66), (0.3, 0.7, 0.78))
    canvas.gradient(HORIZON + 0.04, 1.01, (0.93, 0.83, 0.62), (0.85, 0.72, 0.5))


def _park(canvas: _Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(0, HORIZON, (0.5, 0.75, 0.96), (0.86, 0.93, 0.97))
    canvas.hills(0.52, 0.07, (2, 3), rng.uniform(0, 6), _one_of(rng, (0.4, 0.62, 0.4), (0.5, 0.66, 0.36)))
    for x in rng.uniform(0, WIDTH, 4):
        canvas.box(x, 0.55, 0.03, 0.2, (0.4, 0.28, 0.18))
        canvas.disc(x, 0.4, rng.uniform(0.08, 0.13), _one_of(rng, (0.2, 0.48, 0.24), (0.36, 0.56, 0.22)))
    canvas.gradient(HORIZON, 1.01, (0.5, 0.74, 0.36), (0.36, 0.6, 0.28))


def _street(canvas: _Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(0, HORIZON, (0.66, 0.78, 0.9), (0.9, 0.9, 0.88))
    for i in range(6):
        wall = _one_of(rng, (0.72, 0.5, 0.42), (0.78, 0.72, 0.6), (0.55, 0.6, 0.68))
        height, x = rng.uniform(0.25, 0.5), (i + 0.5) * WIDTH / 6
        canvas.box(x, HORIZON - height / 2, WIDTH / 6 - 0.02, height, wall)
        for row in range(int(height / 0.12)):
            for side in (-0.08, 0.08):
                canvas.box(x + side, HORIZON - height + 0.07 + 0.12 * row, 0.06, 0.06, _shade(wall, 0.55))
    canvas.gradient(HORIZON, 0.7, (0.7, 0.7, 0.7), (0.62, 0.62, 0.62))
    canvas.gradient(0.7, 1.01, (0.42, 0.42, 0.45), (0.34, 0.34, 0.37))


def _room(canvas: _Canvas, rng: np.random.Generator) -> None:
    wall = _one_of(rng, (0.86, 0.78, 0.66), (0.7, 0.8, 0.78), (0.82, 0.7, 0.72), (0.74, 0.76, 0.86))
    canvas.gradient(0, HORIZON + 0.08, wall, _shade(wall, 0.9))
    for x in rng.uniform(0, WIDTH, 2):
        canvas.box(x, 0.3, 0.26, 0.3, (0.95, 0.95, 0.93))
        canvas.box(x, 0.3, 0.22, 0.26, _one_of(rng, (0.62, 0.82, 0.95), (0.9, 0.6, 0.4)))
    canvas.gradient(
        HORIZON + 0.08, 1.01, _one_of(rng, (0.6, 0.42, 0.26), (0.5, 0.46, 0.44)), (0.42, 0.3, 0.2)
    )


def _gym(canvas: _Canvas, rng: np.random.Generator) -> None:
    wall = _one_of(rng, (0.55, 0.65, 0.75), (0.8, 0.8, 0.76), (0.5, 0.6, 0.52))
    canvas.gradient(0, HORIZON + 0.06, _shade(wall, 1.1), wall)
    canvas.gradient(0.42, 0.48, *[_one_of(rng, (0.85, 0.35, 0.25), (0.25, 0.4, 0.75))] * 2)
    for i in range(8):
        canvas.box(i * WIDTH / 8, 0.33, 0.012, 0.66, _shade(wall, 0.8))
    canvas.gradient(HORIZON + 0.06, 1.01, (0.86, 0.66, 0.4), (0.76, 0.55, 0.32))
    canvas.gradient(0.9, 0.92, *[(0.95, 0.92, 0.86)] * 2)


def _snow(canvas: _Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(0, HORIZON, (0.6, 0.7, 0.84), (0.86, 0.89, 0.94))
    canvas.hills(0.5, 0.16, (3, 5), rng.uniform(0, 6), _one_of(rng, (0.72, 0.78, 0.88), (0.6, 0.68, 0.8)))
    for x in rng.uniform(0, WIDTH, 5):
        canvas.disc(x, 0.5, 0.06, (0.24, 0.42, 0.38), squash=2.2)
    canvas.gradient(HORIZON, 1.01, (0.95, 0.96, 0.98), (0.84, 0.88, 0.94))


def _night(canvas: _Canvas, rng: np.random.Generator) -> None:
    canvas.gradient(0, HORIZON, _one_of(rng, (0.05, 0.07, 0.2), (0.14, 0.06, 0.22)), (0.2, 0.2, 0.38))
    for x, y in rng.uniform(0, 1, (24, 2)):
        canvas.disc(x * WIDTH, y * 0.5, 0.007, (0.95, 0.95, 0.85))
    canvas.disc(rng.uniform(0, WIDTH), 0.15, 0.06, (0.95, 0.93, 0.8))
    canvas.hills(0.56, 0.06, (2, 5), rng.uniform(0, 6), (0.1, 0.13, 0.2))
    canvas.gradient(HORIZON, 1.01, (0.22, 0.28, 0.3), (0.14, 0.18, 0.22))


def _stage(canvas: _Canvas, rng: np.random.Generator) -> None:
    curtain = _one_of(rng, (0.6, 0.1, 0.16), (0.24, 0.12, 0.42), (0.1, 0.32, 0.36))
    canvas.gradient(0, HORIZON + 0.1, curtain, _shade(curtain, 0.7))
    for i in range(16):
        canvas.box((i + 0.5) * WIDTH / 16, 0.36, 0.04, 0.72, _shade(curtain, 0.75 if i % 2 else 1.2))
    canvas.gradient(HORIZON + 0.1, 1.01, (0.5, 0.34, 0.22), (0.36, 0.24, 0.16))
    canvas.disc(rng.uniform(0, WIDTH), GROUND, 0.34, (0.9, 0.8, 0.6), squash=0.25)


_PAINT: dict[str, Callable[[_Canvas, np.random.Generator], None]] = {
    "beach": _beach,
    "park": _park,
    "street": _street,
    "room": _room,
    "gym": _gym,
    "snow": _snow,
    "night": _night,
    "stage": _stage,
}

"""Who stands where in front of which camera: a motion in a look, as strokes and joints."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .actions import find_action
from .figures import Figure
from .looks import Look
from .motion import FPS, Motion, pose_track
from .parts import ACTOR, PARTNER, Part
from .render import Shot
from .scenes import GROUND
from .skeleton import JOINTS, Array, Points, body_points, floats, seen_from
from .things import HELD, thing_parts

_FOLLOWS = 0.9
"""Of a runner's way, how much the camera goes along."""
_LAGS = 0.05
"""Seconds by which it is ahead of a runner in the first frame."""
_BEAM_HEIGHT = 0.3
_FILLS = 0.9
"""Of the picture, by what is seen from nearby: its longer side, at a camera's usual distance."""
_HEIGHTS = 0.65, 0.95
"""The least and the largest standing height, in heights of the picture, from nearby."""
_LOWEST = 0.97
"""Where the lowest point may be, in heights of the picture from its top."""
_LIMB, _HEAD = 0.04, 0.1
"""How far people reach around their joints, and around the middle of the head."""


class Stage:
    """A motion in front of a camera, dressed as a look says."""

    def __init__(self, motion: Motion, look: Look, num_frames: int, size: int) -> None:
        self.motion, self.look = motion, look
        self.acting = motion.action != "standing"
        self.pose = pose_track(motion, num_frames)
        self.yaw_F = motion.camera.yaw + self.pose["turn"]
        times_F = np.arange(num_frames, dtype=np.float32) / FPS
        self.way_F = find_action(motion.action).speed * motion.speed * times_F
        self.actor = _moved(seen_from(body_points(self.pose, motion.body), self.yaw_F), self.way_F)
        self.partner = self._partner() if motion.prop == "partner" else None
        on_beam = motion.prop == "beam" and self.acting
        if motion.camera.close:
            scale, middle = _from_nearby(motion, look, size, on_beam=on_beam)
        else:
            scale, middle = _as_usual(motion, size, on_beam=on_beam)
        self.shot = _shot(motion, scale, middle, times_F, self.way_F, size)

    def _partner(self) -> Points:
        """The second person does the same, from the other side."""
        points = seen_from(body_points(self.pose, self.motion.partner), self.yaw_F + 180)
        return _moved(points, self.pose["gap"])

    def parts(self) -> list[Part]:
        return list(self._parts())

    def _parts(self) -> Iterator[Part]:
        motion, look = self.motion, self.look
        yield from Figure(
            points=self.actor,
            yaw_F=self.yaw_F,
            body=motion.body,
            dress=look.actor,
            style=look.style,
            label=ACTOR,
        ).parts()
        if self.partner is not None:
            yield from Figure(
                points=self.partner,
                yaw_F=self.yaw_F + 180,
                body=motion.partner,
                dress=look.partner,
                style=look.style,
                label=PARTNER,
            ).parts()
        yield from thing_parts(motion.prop, self.actor, self.pose, acting=self.acting)

    def joints(self) -> Array:
        """JOINTS of everybody (F, P, J, 2), in pixels."""
        people = [self.actor] if self.partner is None else [self.actor, self.partner]
        return np.stack(
            [np.stack([self.shot.pixels(points[name][:, :2]) for name in JOINTS], 1) for points in people], 1
        )


def _as_usual(motion: Motion, size: int, *, on_beam: bool) -> tuple[float, Array]:
    """Pixels of a body height in the first frame, and the place in the picture's middle."""
    action = find_action(motion.action)
    scale = action.framing * size / motion.camera.distance
    up = (GROUND - 0.5) * size / scale - (_BEAM_HEIGHT if on_beam else 0)
    return scale, floats([action.center, up])


def _from_nearby(motion: Motion, look: Look, size: int, *, on_beam: bool) -> tuple[float, Array]:
    """The same from so near that the whole action fills the picture; feet stand near its lower edge."""
    (left, low), (right, high) = _reach(motion, look)
    low -= 0.06 if on_beam else 0
    fills = _FILLS / motion.camera.distance / max(right - left, high - low)
    height = float(np.clip(fills, *_HEIGHTS))
    bottom = min(max(GROUND, 0.5 + (high - low) * height / 2), _LOWEST)
    return height * size, floats([(left + right) / 2, low + (bottom - 0.5) / height])


def _reach(motion: Motion, look: Look) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where people and what they hold come in the whole action: left and low, right and high.

    In body heights, and beside a runner's way. Moment, speed and what the movement grows to do not count, so
    that all continuations of a picture are seen alike.
    """
    action, (first, _) = find_action(motion.action), motion.amplitude
    camera = replace(motion.camera, close=False)
    whole = replace(motion, phase=0.0, speed=1.0, amplitude=(first, first), camera=camera)
    stage = Stage(whole, look, 1 + round(action.seconds * FPS), 1)
    people = [stage.actor] if stage.partner is None else [stage.actor, stage.partner]
    places = [
        (points[name][:, :2], _HEAD if name == "head" else _LIMB)
        for points in people
        for name in points
        if name not in ("head_up", "head_forward")
    ]
    for part in thing_parts(motion.prop, stage.actor, stage.pose, acting=stage.acting):
        if part.group in HELD:
            places += zip((part.start_F2, part.end_F2), part.radius, strict=True)
    way_F2 = np.stack([stage.way_F, 0 * stage.way_F], -1)
    lows = np.min([(place_F2 - way_F2).min(0) - around for place_F2, around in places], axis=0)
    highs = np.max([(place_F2 - way_F2).max(0) + around for place_F2, around in places], axis=0)
    apart = _LAGS * action.speed
    return (float(lows[0]) - apart, float(lows[1])), (float(highs[0]) + apart, float(highs[1]))


def _shot(motion: Motion, scale: float, middle_2: Array, times_F: Array, way_F: Array, size: int) -> Shot:
    camera = motion.camera
    center_F2 = middle_2 + floats(camera.shift) + floats(camera.drift) * times_F[:, None]
    center_F2[:, 0] += _FOLLOWS * way_F + _LAGS * find_action(motion.action).speed
    scale_F = scale * (1 + camera.zoom * times_F)
    return Shot(scale_F=scale_F.astype(np.float32), center_F2=center_F2.astype(np.float32), size=size)


def _moved(points: Points, to_the_right_F: Array) -> Points:
    move = np.stack([to_the_right_F, 0 * to_the_right_F, 0 * to_the_right_F], -1)
    axes = ("head_up", "head_forward")
    return {name: track if name in axes else track + move for name, track in points.items()}

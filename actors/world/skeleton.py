"""A jointed body: angles of its limbs to points in space, and points in space to the picture.

Space: x where the body looks, y up, z to its left; a standing adult is about 1 high and stands on y = 0.
Angles are in degrees. Axes of arrays: F frames, J joints, 3 or 2 coordinates.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.floating]
Points = dict[str, Array]
"""A track (F, 3) or (F, 2) by the name of its joint."""

JOINTS = (
    "head",
    "neck",
    "pelvis",
    *(f"{side}_{joint}" for side in "lr" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")),
)

CHANNELS = (
    "lean",  # of the trunk, to the front
    "tilt",  # of the trunk, to the left
    "turn",  # of the whole body, to its right
    "nod",  # of the head, to the front
    "x",  # place, in body heights
    "lift",  # of the lowest point above the ground, in body heights
    *(f"{side}_{angle}" for side in "lr" for angle in ("arm", "out", "elbow", "elbow_out")),
    *(f"{side}_{angle}" for side in "lr" for angle in ("leg", "leg_out", "knee")),
    "prop_x",
    "prop_y",
    "prop_angle",
    "gap",  # from the actor to a second person, in body heights
)
"""What a pose consists of. Arms count from the trunk's own downward direction, legs from the vertical.

`arm` and `leg` swing to the front, `out` to the side (180 points up), `elbow` bends to the front and
`elbow_out` to the side, `knee` bends to the back.
"""


@dataclass(frozen=True, kw_only=True)
class Body:
    """Proportions: factors of an average adult's."""

    legs: float = 1.0
    arms: float = 1.0
    trunk: float = 1.0
    girth: float = 1.0


def body_points(pose: Mapping[str, Array], body: Body) -> Points:
    """All joints in space, and heels, toes and hands, with the lowest point on the ground plus `lift`.

    `pose` gives a track (F,) for each of CHANNELS.
    """
    up, forward = _trunk_axes(pose)
    left = np.broadcast_to(floats([0, 0, 1]), up.shape)
    points: Points = {"pelvis": np.zeros_like(up)}
    points["neck"] = points["pelvis"] + 0.3 * body.trunk * up
    nod = _rad(pose["nod"])
    head_up = _turned(up, forward, nod)
    points["head"] = points["neck"] + 0.125 * head_up
    points["head_up"], points["head_forward"] = head_up, _turned(forward, -up, nod)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        points[f"{side}_shoulder"] = points["neck"] - 0.03 * up + 0.095 * body.girth * sign * left
        points[f"{side}_hip"] = points["pelvis"] + 0.05 * body.girth * sign * left
        points |= _arm(side, sign, points, pose, (up, forward, left), body)
        points |= _leg(side, sign, points, pose, body)
    return _on_the_ground(points, pose)


def _trunk_axes(pose: Mapping[str, Array]) -> tuple[Array, Array]:
    lean, tilt = _rad(pose["lean"]), _rad(pose["tilt"])
    up = np.stack([np.sin(lean) * np.cos(tilt), np.cos(lean) * np.cos(tilt), np.sin(tilt)], -1)
    forward = np.stack([np.cos(lean), -np.sin(lean), np.zeros_like(lean)], -1)
    return up.astype(np.float32), forward.astype(np.float32)


def _arm(
    side: str, sign: float, points: Points, pose: Mapping[str, Array], axes: tuple[Array, ...], body: Body
) -> Points:
    swing, out = pose[f"{side}_arm"], pose[f"{side}_out"]
    upper = _direction(swing, out, sign, axes)
    lower = _direction(swing + pose[f"{side}_elbow"], out + pose[f"{side}_elbow_out"], sign, axes)
    elbow = points[f"{side}_shoulder"] + 0.155 * body.arms * upper
    wrist = elbow + 0.145 * body.arms * lower
    return {
        f"{side}_elbow": elbow,
        f"{side}_wrist": wrist,
        f"{side}_hand": wrist + 0.035 * body.arms * lower,
    }


def _leg(side: str, sign: float, points: Points, pose: Mapping[str, Array], body: Body) -> Points:
    swing, out = pose[f"{side}_leg"], pose[f"{side}_leg_out"]
    upright = np.zeros((3, len(swing), 3), np.float32)
    upright[0, :, 1], upright[1, :, 0], upright[2, :, 2] = 1, 1, 1
    shin_swing = swing - pose[f"{side}_knee"]
    knee = points[f"{side}_hip"] + 0.235 * body.legs * _direction(swing, out, sign, upright)
    ankle = knee + 0.225 * body.legs * _direction(shin_swing, out, sign, upright)
    foot = _direction(shin_swing + 90, np.zeros_like(out), sign, upright)
    heel = ankle + 0.03 * _direction(shin_swing, out, sign, upright)
    return {
        f"{side}_knee": knee,
        f"{side}_ankle": ankle,
        f"{side}_heel": heel,
        f"{side}_toe": heel + 0.085 * foot,
    }


def _direction(swing: Array, out: Array, sign: float, axes: tuple[Array, ...] | Array) -> Array:
    """Where a limb points that hangs down at 0, 0."""
    up, forward, left = axes
    swing, out = _rad(swing)[:, None], _rad(out)[:, None]
    result = np.sin(swing) * np.cos(out) * forward - np.cos(swing) * np.cos(out) * up
    return floats(result + sign * np.sin(out) * left)


def _turned(axis: Array, towards: Array, angle: Array) -> Array:
    return floats(np.cos(angle)[:, None] * axis + np.sin(angle)[:, None] * towards)


def _on_the_ground(points: Points, pose: Mapping[str, Array]) -> Points:
    ends = [f"{side}_{end}" for side in "lr" for end in ("heel", "toe", "hand", "knee")]
    lowest = np.min([*(points[end][:, 1] for end in ends), points["pelvis"][:, 1] - 0.07], axis=0)
    move = np.stack([pose["x"], pose["lift"] - lowest, np.zeros_like(lowest)], -1)
    axes = ("head_up", "head_forward")
    return {name: track if name in axes else track + move for name, track in points.items()}


def floats(values: ArrayLike) -> Array:
    """Numbers as an array of single precision."""
    return np.asarray(values, np.float32)


def seen_from(points: Points, yaw: Array | float) -> Points:
    """Points to the right, up and towards the viewer. At yaw 0 the body looks right, at 90 at the viewer."""
    angle = np.deg2rad(floats(yaw))
    cos, sin = np.cos(angle), np.sin(angle)
    return {
        name: np.stack([p[:, 0] * cos + p[:, 2] * sin, p[:, 1], p[:, 0] * sin - p[:, 2] * cos], -1)
        for name, p in points.items()
    }


def _rad(degrees: Array) -> Array:
    return np.deg2rad(degrees).astype(np.float32)

"""Things that people act with: ball, cup, beam, canoe, axe, bucket."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .looks import Color
from .parts import THING, Part
from .skeleton import Array, Points, floats

_WOOD: Color = (0.6, 0.42, 0.24)
_STEEL: Color = (0.68, 0.7, 0.74)

HELD = frozenset({"axe", "bucket", "cup", "paddle"})
"""Groups of parts that are in somebody's hands."""

Pose = Mapping[str, Array]


def thing_parts(prop: str | None, points: Points, pose: Pose, *, acting: bool) -> Iterator[Part]:
    """The thing of an action, where its joints hold it. Somebody who is not acting has it lying around.

    `points` are as the camera sees them: to the right, up, towards it.
    """
    if prop in _DRAW:
        yield from _DRAW[prop](points, pose, acting)


def _stroke(
    group: str,
    start: Array,
    end: Array,
    r1: float,
    r2: float,
    color: Color,
    depth: Array,
    texture: str = "plain",
) -> Part:
    return Part(
        group=group,
        start_F2=start[:, :2],
        end_F2=end[:, :2],
        radius=(r1, r2),
        depth_F=depth,
        color=color,
        label=THING,
        texture=texture,
    )


def _at(x: Array | float, y: Array | float, like: Array) -> Array:
    ones = np.ones(len(like), np.float32)
    return np.stack([x * ones, y * ones], -1).astype(np.float32)


def _along(start: Array, angle: Array, length: float) -> Array:
    """A point that far away; the angle counts from straight ahead, to above."""
    turn = np.deg2rad(angle)
    return floats(start[:, :2] + length * np.stack([np.cos(turn), np.sin(turn)], -1))


def _ball(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    r = 0.062
    x = pose["prop_x"] if acting else 0.36
    center = _at(x, pose["prop_y"] + r, pose["prop_y"])
    depth = points["pelvis"][:, 2] + 0.06
    spin = pose["prop_angle"]
    yield _stroke("ball", center, center, r, r, (0.95, 0.95, 0.95), depth)
    for angle in (20, 140, 260):
        spot = _along(center, spin + angle, 0.6 * r)
        yield _stroke("ball spots", spot, spot, 0.28 * r, 0.28 * r, (0.12, 0.12, 0.14), depth + 0.001)


def _cup(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    hand = points["r_hand"] if acting else points["r_hand"] + floats([0.02, 0.0, 0])
    angle = 90 + pose["prop_angle"]
    bottom = _along(hand, angle + 180, 0.03)
    rim = _along(hand, angle, 0.055)
    depth = points["r_hand"][:, 2] + 0.08
    yield _stroke("cup", bottom, rim, 0.024, 0.034, (0.9, 0.35, 0.25), depth)


def _beam(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    level = -0.03 if acting else 0.3
    shift = 0.0 if acting else 0.55
    depth = points["pelvis"][:, 2] - (0.3 if acting else 0.5)
    like = pose["lean"]
    for x in (-0.62, 0.62):
        top = _at(x + shift, level, like)
        yield _stroke("beam legs", top, _at(x + shift, level - 0.3, like), 0.025, 0.03, _STEEL, depth - 0.01)
    yield _stroke(
        "beam", _at(-0.8 + shift, level, like), _at(0.8 + shift, level, like), 0.032, 0.032, _WOOD, depth
    )


def _canoe(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    pelvis = points["pelvis"]
    like = pose["lean"]
    x, y = pelvis[:, 0], pelvis[:, 1] - 0.03
    front = np.full(len(like), 0.5, np.float32)
    bow, stern, keel = (
        _at(x + 0.78, y + 0.07, like),
        _at(x - 0.5, y + 0.07, like),
        _at(x - 0.1, y - 0.02, like),
    )
    hull: Color = (0.78, 0.3, 0.16)
    yield _stroke("hull", keel, bow, 0.085, 0.02, hull, front)
    yield _stroke("hull", keel, stern, 0.085, 0.025, hull, front)
    water = _at(x - 3, y - 0.345, like), _at(x + 3, y - 0.345, like)
    yield _stroke("water", *water, 0.29, 0.29, (0.2, 0.48, 0.66), front + 0.1)
    grip, low = points["l_hand"], points["r_hand"]
    way = (low - grip)[:, :2]
    way /= np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 0.05)
    tip = low[:, :2] + 0.26 * way
    near = np.maximum(low[:, 2], grip[:, 2]) + 0.07
    yield _stroke("paddle", grip, tip, 0.012, 0.012, _WOOD, near)
    yield _stroke("paddle", tip, tip + 0.1 * way, 0.034, 0.04, _WOOD, near)


def _axe(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    like = pose["lean"]
    depth = points["pelvis"][:, 2]
    log = _at(0.5, 0.0, like), _at(0.5, 0.13, like)
    yield _stroke("log", *log, 0.075, 0.075, (0.52, 0.35, 0.2), depth - 0.2)
    yield _stroke("log", log[1], log[1], 0.06, 0.06, (0.82, 0.66, 0.44), depth - 0.2)
    hand: Array
    if acting:
        hand = (points["l_hand"] + points["r_hand"])[:, :2] / 2
        arm = hand - (points["l_elbow"] + points["r_elbow"])[:, :2] / 2
        angle = np.rad2deg(np.arctan2(arm[:, 1], arm[:, 0])) + pose["prop_angle"]
        depth = np.maximum(points["l_hand"][:, 2], points["r_hand"][:, 2]) + 0.05
    else:
        hand, angle = _at(0.47, 0.16, like), np.full(len(like), 118.0, np.float32)
    head = _along(hand, angle, 0.26)
    yield _stroke("axe", _along(hand, angle, -0.08), head, 0.014, 0.014, _WOOD, depth)
    edge = _along(head, angle - 90, 0.075)
    yield _stroke("axe", _along(head, angle + 90, 0.015), edge, 0.022, 0.045, _STEEL, depth + 0.001)


def _bucket(points: Points, pose: Pose, acting: bool) -> Iterator[Part]:
    like = pose["lean"]
    hands: Array = (points["l_hand"] + points["r_hand"]) / 2
    center = hands[:, :2] if acting else _at(0.36, 0.12, like)
    angle = 90 - (pose["prop_angle"] if acting else 0 * like)
    depth = (hands[:, 2] if acting else points["pelvis"][:, 2]) + 0.06
    rim = _along(center, angle, 0.09)
    yield _stroke(
        "bucket", _along(center, angle, -0.09), rim, 0.062, 0.085, (0.3, 0.5, 0.75), depth, "striped"
    )
    if acting:
        yield from _water(rim, points, pose, depth)


def _water(rim: Array, points: Points, pose: Pose, depth: Array) -> Iterator[Part]:
    """Drops between the bucket and the ground; none before any was poured (they hide in the bucket)."""
    poured = np.clip(pose["prop_y"], 0, 1.2)
    rng = np.random.default_rng(3)
    for i in range(9):
        late, aside = rng.uniform(0, 0.6), rng.uniform(-0.13, 0.13)
        fall = np.clip((poured - late) / 0.6, 0, 1)
        x = rim[:, 0] + aside * np.sqrt(fall) - 0.02
        y = rim[:, 1] * (1 - fall**1.5) + 0.02 * fall
        top = np.stack([x, y], -1).astype(np.float32)
        length = 0.07 * np.minimum(fall * 4, 1)
        end = top - np.stack([0 * length, np.minimum(length, np.maximum(y, 0))], -1).astype(np.float32)
        behind = np.where(fall > 0, 0.05, -0.05)
        yield _stroke(f"water {i}", top, end, 0.014, 0.02, (0.6, 0.82, 0.95), depth + behind)


_DRAW: dict[str | None, Callable[[Points, Pose, bool], Iterator[Part]]] = {
    "ball": _ball,
    "cup": _cup,
    "beam": _beam,
    "canoe": _canoe,
    "axe": _axe,
    "bucket": _bucket,
}

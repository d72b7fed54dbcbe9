"""How somebody moves in one clip: an action with its own speed, moment, size, body, side and camera."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .actions import EXTRA_MOTIONS, PROP_WORDS, between, find_action, key_table
from .skeleton import CHANNELS, Array, Body

FPS = 8
"""Frames a second of all clips."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the camera stands, and how it drifts."""

    yaw: float
    """Degrees; 0 sees the actor from the side, 90 from the front."""
    distance: float
    """A factor of the action's usual one."""
    shift: tuple[float, float]
    """Of the picture's middle, in body heights: to the front and up."""
    drift: tuple[float, float]
    """The same a second."""
    zoom: float
    """Growth of the picture a second; 0 is none."""
    close: bool = False
    """Whether it stands so near that the people fill the picture in the course of the action."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """One performance of an action."""

    action: str
    prop: str | None
    speed: float
    phase: float
    """Where in the cycle the first frame lies."""
    amplitude: tuple[float, float]
    """Size of the movement in the first frame, and after a second."""
    mirrored: bool
    body: Body
    partner: Body
    camera: Camera
    variant: int
    """Seed of motions that are drawn anew each time (EXTRA_MOTIONS), and of small differences in poses."""


def draw_motion(action: str, seed: int, close: bool = False) -> Motion:
    """A performance of the action; the same seed gives the same one. Raises ValueError for other names.

    With `close` it is filmed from nearby: people, all that they do in it, fill most of the picture.
    """
    found = find_action(action)
    rng = np.random.default_rng([seed, *action.encode()])
    amplitude = rng.uniform(0.85, 1.12)
    return Motion(
        action=action,
        prop=found.prop or _draw_prop(action, rng),
        speed=float(rng.uniform(0.8, 1.2)),
        phase=float(rng.uniform(0, 1) if found.cyclic else rng.uniform(0, 0.06)),
        amplitude=(float(amplitude), float(amplitude * rng.uniform(0.92, 1.08))),
        mirrored=bool(rng.integers(2)),
        body=_draw_body(rng),
        partner=_draw_body(rng),
        camera=Camera(
            yaw=found.view + float(rng.uniform(-16, 16)),
            distance=float(rng.uniform(0.92, 1.12)),
            shift=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.02, 0.03))),
            drift=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.01))),
            zoom=float(rng.normal(0, 0.02)),
            close=close,
        ),
        variant=int(rng.integers(2**31)),
    )


def continuations(motion: Motion, num: int, seed: int) -> list[Motion]:
    """Other performances with exactly the same first frame: speed and amplitude are free given a picture."""
    rng = np.random.default_rng([seed, motion.variant])
    return [
        replace(
            motion,
            speed=float(rng.uniform(0.8, 1.2)),
            amplitude=(motion.amplitude[0], float(motion.amplitude[0] * rng.uniform(0.88, 1.12))),
        )
        for _ in range(num)
    ]


def elsewhere(motion: Motion) -> Motion:
    """The same person at another moment of the action, 0.2 to 0.45 body heights to the front or back."""
    rng = np.random.default_rng([0, motion.variant])
    x, y = motion.camera.shift
    x += float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.45))
    camera = replace(motion.camera, shift=(x, y))
    return replace(motion, phase=float(rng.uniform(0, 1)), camera=camera)


def pose_track(motion: Motion, num_frames: int) -> Mapping[str, Array]:
    """The pose of every frame: a track (F,) for each of CHANNELS."""
    action = find_action(motion.action)
    moments, poses = _keys(motion.action, motion.variant)
    times_F = np.arange(num_frames, dtype=np.float32) / FPS
    at_F = motion.phase + times_F * motion.speed / action.seconds
    values_FP = between(moments, poses, at_F, cyclic=action.cyclic)
    rest_P = poses.mean(0) if action.cyclic else poses[0]
    first, later = motion.amplitude
    amplitude_F1 = (first + (later - first) * np.clip(times_F, 0, 1))[:, None]
    scaled_FP = rest_P + amplitude_F1 * (values_FP - rest_P)
    pose = {name: scaled_FP[:, i] for i, name in enumerate(CHANNELS)}
    if action.cyclic:
        pose["lift"] = np.maximum(pose["lift"], 0)
    return pose


def _draw_body(rng: np.random.Generator) -> Body:
    legs, arms, trunk = (float(x) for x in rng.uniform(0.93, 1.07, 3))
    return Body(legs=legs, arms=arms, trunk=trunk, girth=float(rng.uniform(0.88, 1.2)))


def _draw_prop(action: str, rng: np.random.Generator) -> str | None:
    if action != "standing":
        return None
    return [None, *PROP_WORDS][rng.integers(len(PROP_WORDS) + 1)]


@cache
def _keys(action: str, variant: int) -> tuple[Array, Array]:
    """Key poses of one performance: everybody does it a little differently."""
    rng = np.random.default_rng(variant)
    if action in EXTRA_MOTIONS:
        return _everyday_keys(action, rng)
    moments, poses = key_table(find_action(action).keys)
    limbs = np.array([not name.startswith("prop") and name not in ("x", "lift", "gap") for name in CHANNELS])
    return moments, (poses + limbs * rng.normal(0, 3, len(CHANNELS))).astype(np.float32)


def _everyday_keys(action: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """Five poses that nobody planned: next to none for standing, wide ones for gesturing."""
    size = 4.0 if action == "standing" else 1.0
    ((_, rest),) = find_action(action).keys
    ranges = {"l_arm": 70, "r_arm": 70, "l_elbow": 50, "r_elbow": 50, "l_out": 30, "r_out": 30, "lean": 14}
    ranges |= {"l_leg": 28, "r_leg": 28, "l_knee": 26, "r_knee": 26, "nod": 14, "turn": 18, "tilt": 5}
    bends = ("l_elbow", "r_elbow", "l_knee", "r_knee", "l_out", "r_out")
    base = {name: rest.get(name, 0.0) + rng.normal(0, 0.5 * reach) for name, reach in ranges.items()}
    keys = []
    for i in range(5):
        pose = {name: base[name] + rng.normal(0, 0.75 * reach) for name, reach in ranges.items()}
        if action == "standing":
            pose = {name: rest.get(name, 0.0) + rng.normal(0, size) + 0.08 * base[name] for name in ranges}
        keys.append((i / 5, {name: abs(v) if name in bends else v for name, v in pose.items()}))
    return key_table(tuple(keys))

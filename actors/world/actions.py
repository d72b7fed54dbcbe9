"""The actions: key poses of a cycle, and what else is in the picture."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .skeleton import CHANNELS, Array, floats

Pose = dict[str, float]
Keys = tuple[tuple[float, Mapping[str, float]], ...]
"""Moments of a cycle, from 0 to 1, and the poses there."""

_ARMS_DOWN: Pose = {"l_arm": -4, "r_arm": -4, "l_out": 9, "r_out": 9, "l_elbow": 12, "r_elbow": 12}


@dataclass(frozen=True, kw_only=True)
class Action:
    """Key poses with a smooth way between them."""

    sentence: str
    seconds: float
    """Of one cycle at speed 1."""
    keys: Keys
    cyclic: bool = True
    """Whether the end is the start. An action that is not begins at its first pose and stays at its last."""
    view: float = 0.0
    """The middle of the directions it is seen from: 0 from its side, 90 from its front."""
    prop: str | None = None
    framing: float = 0.7
    """Height of a standing adult, in heights of the picture."""
    center: float = 0.0
    """What the picture's middle shows: body heights in front of the actor."""
    speed: float = 0.0
    """Of the actor over ground, in body heights a second; the camera follows."""


def _mirrored(pose: Mapping[str, float]) -> Pose:
    swap = {"l_": "r_", "r_": "l_"}
    return {swap.get(name[:2], name[:2]) + name[2:]: value for name, value in pose.items()}


def _steps(*poses: Mapping[str, float]) -> Keys:
    """A cycle of two steps: the poses, then the same with left and right exchanged."""
    both = [*poses, *(_mirrored(pose) for pose in poses)]
    return tuple((i / len(both), pose) for i, pose in enumerate(both))


_PUSH_UP = {"l_out": 8.0, "r_out": 8.0, "nod": -35.0}
_RUN_ARMS = {"l_elbow": 85.0, "r_elbow": 85.0, "l_out": 8.0, "r_out": 8.0}
_SEATED: Pose = {"l_leg": 88, "r_leg": 80, "l_knee": 75, "r_knee": 62, "lean": 12}
_AXE: Pose = {"l_out": -14, "r_out": -14}

_ALL: dict[str, Action] = {
    "push-up": Action(
        sentence="a person is doing a push-up",
        seconds=1.1,
        framing=0.78,
        keys=(
            (0.0, _PUSH_UP | {"lean": 66, "l_leg": -68, "r_leg": -68, "l_arm": 67, "r_arm": 67}),
            (
                0.5,
                _PUSH_UP
                | {"lean": 81, "l_leg": -81, "r_leg": -81, "l_arm": -8, "r_arm": -8}
                | {"l_elbow": 95, "r_elbow": 95},
            ),
        ),
    ),
    "arm wave": Action(
        sentence="a person is waving an arm",
        seconds=0.8,
        view=80,
        framing=0.76,
        keys=(
            (0.0, _ARMS_DOWN | {"r_arm": 0, "r_out": 105, "r_elbow": 0, "r_elbow_out": 25, "tilt": 3}),
            (0.5, _ARMS_DOWN | {"r_arm": 0, "r_out": 125, "r_elbow": 0, "r_elbow_out": 110, "tilt": -3}),
        ),
    ),
    "shoot dance": Action(
        sentence="a person is doing a shoot dance",
        seconds=1.0,
        view=50,
        framing=0.74,
        keys=_steps(
            {"l_leg": 8, "l_knee": 22, "r_leg": 48, "r_knee": 85, "l_arm": 45, "r_arm": -35, "l_elbow": 70}
            | {"r_elbow": 60, "l_out": 12, "r_out": 20, "lean": 4},
            {"l_leg": -2, "l_knee": 4, "r_leg": 62, "r_knee": 8, "l_arm": -30, "r_arm": 40, "l_elbow": 40}
            | {"r_elbow": 70, "l_out": 22, "r_out": 12, "lean": -8, "lift": 0.05},
        ),
    ),
    "running in place": Action(
        sentence="a person is running in place",
        seconds=0.75,
        view=48,
        framing=0.76,
        keys=_steps(
            _RUN_ARMS
            | {"l_leg": 72, "l_knee": 95, "r_leg": 0, "r_knee": 4, "l_arm": -42, "r_arm": 42, "lean": 3},
            _RUN_ARMS | {"l_leg": 28, "l_knee": 45, "r_leg": 22, "r_knee": 48, "lift": 0.05, "lean": 3},
        ),
    ),
    "sprint run": Action(
        sentence="a person is sprinting",
        seconds=0.72,
        speed=1.7,
        framing=0.76,
        keys=_steps(
            _RUN_ARMS
            | {"l_leg": 52, "l_knee": 30, "r_leg": -42, "r_knee": 30, "l_arm": -60, "r_arm": 60, "lean": 16}
            | {"lift": 0.05},
            _RUN_ARMS | {"l_leg": 8, "l_knee": 14, "r_leg": 30, "r_knee": 105, "lean": 18},
        ),
    ),
    "soccer shoot": Action(
        sentence="a person is shooting a soccer ball",
        seconds=0.95,
        cyclic=False,
        prop="ball",
        center=0.3,
        framing=0.7,
        keys=(
            (0.0, _ARMS_DOWN | {"l_leg": 10, "r_leg": -14, "r_knee": 10, "prop_x": 0.42, "lean": 4}),
            (
                0.28,
                {
                    "l_leg": 16,
                    "l_knee": 22,
                    "r_leg": -52,
                    "r_knee": 75,
                    "l_arm": 45,
                    "r_arm": -45,
                    "l_out": 40,
                }
                | {"r_out": 30, "lean": 8, "x": 0.08, "prop_x": 0.42},
            ),
            (
                0.48,
                {"l_leg": 2, "l_knee": 12, "r_leg": 32, "r_knee": 14, "l_arm": -10, "r_arm": 10, "l_out": 50}
                | {"r_out": 40, "lean": 2, "x": 0.14, "prop_x": 0.44},
            ),
            (
                0.7,
                {"l_leg": -8, "l_knee": 6, "r_leg": 88, "r_knee": 10, "l_arm": -35, "r_arm": 40, "l_out": 55}
                | {"r_out": 45, "lean": -14, "x": 0.16, "prop_x": 0.85, "prop_y": 0.16, "prop_angle": 140},
            ),
            (
                1.0,
                {"l_leg": -2, "l_knee": 6, "r_leg": 42, "r_knee": 34, "l_arm": -10, "r_arm": 20, "l_out": 35}
                | {"r_out": 30, "lean": -3, "x": 0.18, "prop_x": 1.5, "prop_y": 0.42, "prop_angle": 360},
            ),
        ),
    ),
    "drinking from a cup": Action(
        sentence="a person is drinking from a cup",
        seconds=1.3,
        view=40,
        prop="cup",
        framing=0.78,
        keys=(
            (0.0, _ARMS_DOWN | {"r_arm": 12, "r_elbow": 70, "r_out": 8}),
            (0.4, _ARMS_DOWN | {"r_arm": 62, "r_elbow": 118, "r_out": 2, "nod": -6, "prop_angle": 25}),
            (0.62, _ARMS_DOWN | {"r_arm": 74, "r_elbow": 114, "r_out": 2, "nod": -24, "prop_angle": 75}),
        ),
    ),
    "balance beam jump": Action(
        sentence="a person is jumping on a balance beam",
        seconds=1.1,
        cyclic=False,
        prop="beam",
        framing=0.54,
        keys=(
            (0.0, {"l_out": 80, "r_out": 80, "l_leg": 8, "r_leg": -10}),
            (
                0.25,
                {"l_leg": 52, "l_knee": 92, "r_leg": 44, "r_knee": 92, "l_arm": -55, "r_arm": -55, "lean": 28}
                | {"l_out": 20, "r_out": 20},
            ),
            (
                0.55,
                {
                    "l_leg": 70,
                    "l_knee": 6,
                    "r_leg": -62,
                    "r_knee": 14,
                    "l_arm": 150,
                    "r_arm": 150,
                    "lift": 0.34,
                }
                | {"l_out": 25, "r_out": 25},
            ),
            (
                0.82,
                {"l_leg": 44, "l_knee": 70, "r_leg": 20, "r_knee": 64, "l_arm": 60, "r_arm": 60, "lean": 16}
                | {"l_out": 55, "r_out": 55},
            ),
            (1.0, {"l_out": 88, "r_out": 88, "l_arm": 20, "r_arm": 20, "l_leg": 10, "r_leg": -6}),
        ),
    ),
    "canoeing sprint": Action(
        sentence="a person is paddling a canoe",
        seconds=0.85,
        prop="canoe",
        framing=0.9,
        center=0.16,
        speed=0.9,
        keys=(
            (
                0.0,
                _SEATED
                | {
                    "r_arm": 78,
                    "r_elbow": 6,
                    "l_arm": 82,
                    "l_elbow": 62,
                    "lean": 30,
                    "turn": 14,
                    "prop_angle": -40,
                },
            ),
            (
                0.35,
                _SEATED
                | {
                    "r_arm": 34,
                    "r_elbow": 14,
                    "l_arm": 92,
                    "l_elbow": 16,
                    "lean": 16,
                    "turn": -4,
                    "prop_angle": 0,
                },
            ),
            (
                0.55,
                _SEATED
                | {
                    "r_arm": -12,
                    "r_elbow": 62,
                    "l_arm": 86,
                    "l_elbow": 0,
                    "lean": 4,
                    "turn": -14,
                    "prop_angle": 42,
                },
            ),
            (
                0.8,
                _SEATED
                | {
                    "r_arm": 40,
                    "r_elbow": 66,
                    "l_arm": 84,
                    "l_elbow": 44,
                    "lean": 14,
                    "turn": 4,
                    "prop_angle": -8,
                },
            ),
        ),
    ),
    "chopping wood": Action(
        sentence="a person is chopping wood",
        seconds=1.0,
        prop="axe",
        framing=0.64,
        center=0.16,
        keys=(
            (
                0.0,
                _AXE
                | {
                    "l_arm": 62,
                    "r_arm": 56,
                    "l_elbow": 12,
                    "r_elbow": 16,
                    "lean": 34,
                    "l_leg": 26,
                    "r_leg": -6,
                }
                | {"l_knee": 30, "r_knee": 14, "prop_angle": 0},
            ),
            (
                0.35,
                _AXE
                | {
                    "l_arm": 120,
                    "r_arm": 116,
                    "l_elbow": 36,
                    "r_elbow": 40,
                    "lean": 4,
                    "l_leg": 14,
                    "r_leg": -12,
                }
                | {"l_knee": 8, "r_knee": 4, "prop_angle": 60},
            ),
            (
                0.58,
                _AXE
                | {
                    "l_arm": 172,
                    "r_arm": 168,
                    "l_elbow": 44,
                    "r_elbow": 48,
                    "lean": -10,
                    "l_leg": 10,
                    "r_leg": -14,
                }
                | {"l_knee": 4, "r_knee": 2, "prop_angle": 95},
            ),
            (
                0.8,
                _AXE
                | {
                    "l_arm": 112,
                    "r_arm": 106,
                    "l_elbow": 14,
                    "r_elbow": 18,
                    "lean": 16,
                    "l_leg": 20,
                    "r_leg": -8,
                }
                | {"l_knee": 20, "r_knee": 8, "prop_angle": 35},
            ),
        ),
    ),
    "ice bucket challenge": Action(
        sentence="a person is pouring an ice bucket",
        seconds=1.2,
        cyclic=False,
        view=72,
        prop="bucket",
        framing=0.6,
        keys=(
            (0.0, {"l_arm": 42, "r_arm": 42, "l_out": 4, "r_out": 4, "l_elbow": 62, "r_elbow": 62}),
            (
                0.35,
                {
                    "l_arm": 135,
                    "r_arm": 135,
                    "l_out": 8,
                    "r_out": 8,
                    "l_elbow": 34,
                    "r_elbow": 34,
                    "prop_angle": 10,
                },
            ),
            (
                0.6,
                {"l_arm": 168, "r_arm": 168, "l_out": 10, "r_out": 10, "l_elbow": 22, "r_elbow": 22}
                | {"prop_angle": 120, "prop_y": 0.25, "nod": 12},
            ),
            (
                1.0,
                {"l_arm": 164, "r_arm": 164, "l_out": 12, "r_out": 12, "l_elbow": 26, "r_elbow": 26}
                | {
                    "prop_angle": 165,
                    "prop_y": 1.0,
                    "nod": 24,
                    "lean": 5,
                    "l_leg": 6,
                    "l_knee": 10,
                    "r_knee": 8,
                },
            ),
        ),
    ),
    "hugging human": Action(
        sentence="two people are hugging",
        seconds=1.2,
        cyclic=False,
        prop="partner",
        framing=0.7,
        center=0.34,
        keys=(
            (0.0, _ARMS_DOWN | {"gap": 0.86, "l_leg": 12, "r_leg": -12}),
            (
                0.4,
                {
                    "l_arm": 58,
                    "r_arm": 66,
                    "l_out": 34,
                    "r_out": 30,
                    "l_elbow": 18,
                    "r_elbow": 14,
                    "gap": 0.56,
                }
                | {"l_leg": -16, "r_leg": 18, "r_knee": 10, "lean": 6},
            ),
            (
                0.75,
                {"l_arm": 78, "r_arm": 62, "l_out": 10, "r_out": 8, "l_elbow": 42, "r_elbow": 36, "gap": 0.23}
                | {"l_leg": 2, "r_leg": -6, "lean": 8, "nod": 12},
            ),
            (
                1.0,
                {"l_arm": 72, "r_arm": 58, "l_out": 6, "r_out": 4, "l_elbow": 56, "r_elbow": 50, "gap": 0.2}
                | {"lean": 7, "nod": 18, "tilt": 5},
            ),
        ),
    ),
    "standing": Action(
        sentence="a person is standing", seconds=2.0, view=45, framing=0.76, keys=((0.0, _ARMS_DOWN),)
    ),
    "gesturing": Action(
        sentence="a person is moving", seconds=1.6, view=45, framing=0.74, keys=((0.0, _ARMS_DOWN),)
    ),
}

EXTRA_MOTIONS = ("standing", "gesturing")
"""Everyday motions, for a model that knows people and things but not the actions."""
ACTIONS = tuple(name for name in _ALL if name not in EXTRA_MOTIONS)
"""The twelve actions of FLASH (arXiv:2503.00276, A3.1)."""
HELD_OUT_ACTIONS = ("arm wave", "soccer shoot", "balance beam jump", "chopping wood")
"""Actions that the small base has never seen; their things it has."""
SEEN_ACTIONS = tuple(name for name in ACTIONS if name not in HELD_OUT_ACTIONS)

PROP_WORDS = {
    "ball": "a soccer ball",
    "cup": "a cup",
    "beam": "a balance beam",
    "axe": "an axe and wood",
    "bucket": "a bucket",
}
"""Things that somebody can stand with."""


def find_action(name: str) -> Action:
    """The action of that name. Raises ValueError if there is none."""
    if name not in _ALL:
        raise ValueError(f"There is no action '{name}': choose one of {', '.join(_ALL)}.")
    return _ALL[name]


def action_sentence(name: str) -> str:
    """What a clip of the action shows, as a prompt."""
    return find_action(name).sentence


def key_table(keys: Keys) -> tuple[Array, Array]:
    """Moments (K,) and key poses (K, channels); channels that a pose does not name are 0."""
    moments = floats([moment for moment, _ in keys])
    poses = floats([[pose.get(name, 0.0) for name in CHANNELS] for _, pose in keys])
    return moments, poses


def between(moments: Array, values: Array, at_F: Array, *, cyclic: bool) -> Array:
    """Values (F, channels) on smooth curves through the key values (K, channels).

    Cubic Hermite curves that never overshoot a key (no slope at turning points, else the harmonic mean of
    the neighbouring chords: Fritsch and Butland's choice), so feet and balls stay where two keys agree.
    """
    if len(moments) == 1:
        return np.repeat(values, len(at_F), 0)
    if cyclic:
        moments = np.concatenate([moments[-2:] - 1, moments, moments[:2] + 1])
        values = np.concatenate([values[-2:], values, values[:2]])
        at_F = at_F % 1
    else:
        at_F = np.clip(at_F, moments[0], moments[-1])
    widths = np.diff(moments)[:, None]
    chords = np.diff(values, axis=0) / widths
    product = chords[1:] * chords[:-1]
    mean = 2 * product / np.where(product > 0, chords[1:] + chords[:-1], 1)
    slopes = np.zeros_like(values)
    slopes[1:-1] = np.where(product > 0, mean, 0)
    i = np.clip(np.searchsorted(moments, at_F, "right") - 1, 0, len(moments) - 2)
    t = ((at_F - moments[i]) / widths[i, 0])[:, None]
    start, end = values[i], values[i + 1]
    return floats(
        start * (1 + 2 * t) * (1 - t) ** 2
        + end * t**2 * (3 - 2 * t)
        + widths[i] * (slopes[i] * t * (1 - t) ** 2 - slopes[i + 1] * t**2 * (1 - t))
    )

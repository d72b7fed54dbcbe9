"""Who stands where in front of which camera: a motion in a look, as strokes and joints."""

from collections.abc import Iterator

import numpy as np

from .actions import find_action
from .figures import Figure
from .looks import Look
from .motion import FPS, Motion, pose_track
from .parts import ACTOR, PARTNER, Part
from .render import Shot
from .scenes import GROUND
from .skeleton import JOINTS, Array, Points, body_points, floats, seen_from
from .things import thing_parts

_FOLLOWS = 0.9
"""Of a runner's way, how much the camera goes along."""
_BEAM_HEIGHT = 0.3


class Stage:
    """A motion in front of a camera, dressed as a look says."""

    def __init__(self, motion: Motion, look: Look, num_frames: int, size: int) -> None:
        self.motion, self.look = motion, look
        self.acting = motion.action != "standing"
        self.pose = pose_track(motion, num_frames)
        self.yaw_F = motion.camera.yaw + self.pose["turn"]
        times_F = np.arange(num_frames, dtype=np.float32) / FPS
        way_F = find_action(motion.action).speed * motion.speed * times_F
        self.actor = _moved(seen_from(body_points(self.pose, motion.body), self.yaw_F), way_F)
        self.partner = self._partner() if motion.prop == "partner" else None
        self.shot = _shot(motion, times_F, way_F, size, on_beam=motion.prop == "beam" and self.acting)

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


def _shot(motion: Motion, times_F: Array, way_F: Array, size: int, *, on_beam: bool) -> Shot:
    action, camera = find_action(motion.action), motion.camera
    scale = action.framing * size / camera.distance
    up = (GROUND - 0.5) * size / scale - (_BEAM_HEIGHT if on_beam else 0)
    middle = floats([action.center + camera.shift[0], up + camera.shift[1]])
    center_F2 = middle + floats(camera.drift) * times_F[:, None]
    center_F2[:, 0] += _FOLLOWS * way_F + 0.05 * action.speed
    scale_F = scale * (1 + camera.zoom * times_F)
    return Shot(scale_F=scale_F.astype(np.float32), center_F2=center_F2.astype(np.float32), size=size)


def _moved(points: Points, to_the_right_F: Array) -> Points:
    move = np.stack([to_the_right_F, 0 * to_the_right_F, 0 * to_the_right_F], -1)
    axes = ("head_up", "head_forward")
    return {name: track if name in axes else track + move for name, track in points.items()}

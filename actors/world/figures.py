"""People, drawn: a body's joints, dressed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .looks import Color, Dress
from .parts import Part
from .skeleton import Array, Body, Points

_HEAD = {"cartoon": 1.42, "alien": 1.28}
"""Size of heads by style; others are as in life."""
_EYES = {"cartoon": 0.24, "alien": 0.34}
_INK: Color = (0.1, 0.08, 0.1)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One person in one clip."""

    points: Points
    """As the camera sees them: to the right, up, towards it (F, 3)."""
    yaw_F: Array
    body: Body
    dress: Dress
    style: str
    label: int

    def parts(self) -> Iterator[Part]:
        for side in "lr":
            yield from self._leg(side)
            yield from self._arm(side)
        yield from self._trunk()
        yield from self._head()

    def _part(
        self,
        group: str,
        start: Array,
        end: Array,
        r1: float,
        r2: float,
        color: Color,
        *,
        depth: Array,
        texture: str = "plain",
        outlined: bool = True,
    ) -> Part:
        return Part(
            group=f"{self.label} {group}",
            start_F2=start[:, :2],
            end_F2=end[:, :2],
            radius=(r1, r2),
            depth_F=depth,
            color=color,
            label=self.label,
            texture=texture,
            outlined=outlined,
        )

    def _limb(
        self, group: str, names: tuple[str, ...], radii: tuple[float, ...], colors: tuple[Color, ...]
    ) -> Iterator[Part]:
        girth = self.body.girth**0.5
        tracks = [self.points[name] for name in names]
        depth = np.mean([track[:, 2] for track in tracks[:3]], axis=0)
        for i, color in enumerate(colors):
            r1, r2 = radii[i] * girth, radii[i + 1] * girth
            yield self._part(group, tracks[i], tracks[i + 1], r1, r2, color, depth=depth)

    def _leg(self, side: str) -> Iterator[Part]:
        dress = self.dress
        thigh = dress.skin if dress.bottom_kind == "skirt" else dress.bottom
        shin = dress.bottom if dress.bottom_kind == "pants" else dress.skin
        names = ("hip", "knee", "ankle")
        yield from self._limb(
            f"{side} leg", tuple(f"{side}_{n}" for n in names), (0.056, 0.043, 0.032), (thigh, shin)
        )
        heel, toe = self.points[f"{side}_heel"], self.points[f"{side}_toe"]
        ankle = self.points[f"{side}_ankle"]
        depth = ankle[:, 2]
        yield self._part(f"{side} leg", heel * 0.7 + ankle * 0.3, toe, 0.034, 0.026, dress.shoes, depth=depth)

    def _arm(self, side: str) -> Iterator[Part]:
        dress = self.dress
        lower = dress.top if dress.sleeves else dress.skin
        names = tuple(f"{side}_{n}" for n in ("shoulder", "elbow", "wrist"))
        yield from self._limb(f"{side} arm", names, (0.041, 0.035, 0.028), (dress.top, lower))
        wrist, hand = self.points[names[2]], self.points[f"{side}_hand"]
        depth = np.mean([self.points[name][:, 2] for name in names], axis=0)
        yield self._part(f"{side} arm", wrist, hand, 0.029, 0.031, dress.skin, depth=depth)

    def _trunk(self) -> Iterator[Part]:
        dress, girth = self.dress, self.body.girth
        neck, pelvis, head = (self.points[name] for name in ("neck", "pelvis", "head"))
        front = float(abs(np.sin(np.deg2rad(self.yaw_F[0]))))
        chest = (0.062 + 0.036 * front) * girth
        waist = (0.055 + 0.022 * front) * girth
        high = neck + 0.22 * (pelvis - neck)
        if dress.bottom_kind == "skirt":
            knees = (self.points["l_knee"] + self.points["r_knee"]) / 2
            hem = pelvis + 0.62 * (knees - pelvis)
            apart = float(abs(self.points["l_knee"] - self.points["r_knee"])[0, 0])
            yield self._part(
                "skirt",
                pelvis,
                hem,
                waist,
                min(0.075 + 0.5 * apart, 0.13),
                dress.bottom,
                depth=pelvis[:, 2] + 0.02,
            )
        else:
            low = pelvis + 0.06 * (neck - pelvis)
            yield self._part("trunk", pelvis, low, waist * 0.95, waist, dress.bottom, depth=pelvis[:, 2])
        yield self._part("trunk", neck, head, 0.028, 0.028, dress.skin, depth=pelvis[:, 2] + 0.001)
        belt = pelvis + 0.2 * (neck - pelvis)
        yield self._part(
            "trunk",
            high,
            belt,
            chest,
            waist,
            dress.top,
            texture=dress.top_texture,
            depth=pelvis[:, 2] + 0.002,
        )

    def _head(self) -> Iterator[Part]:
        dress = self.dress
        r = 0.066 * _HEAD.get(self.style, 1.0)
        up, forward = self.points["head_up"] * r, self.points["head_forward"] * r
        center = self.points["head"] + up * (0.066 * (_HEAD.get(self.style, 1.0) - 1) / r)
        depth = center[:, 2] + 0.01
        if dress.haircut == "long":
            back = center - 0.35 * forward
            yield self._part("hair", back, back - 1.5 * up, r, 0.75 * r, dress.hair, depth=depth - 0.05)
        chin = center - (0.62 if self.style == "alien" else 0.22) * up + 0.08 * forward
        yield self._part(
            "head", center, chin, r, r * (0.6 if self.style == "alien" else 0.85), dress.skin, depth=depth
        )
        yield from self._face(center, up, forward, r)
        if dress.haircut != "bald":
            yield from self._hair(center, up, forward, r)
        if self.style == "alien":
            for sign in (-1, 1):
                tip = center + 1.7 * up + sign * 0.55 * self._left(r)
                yield self._part(
                    "antennae", center + 0.8 * up, tip, 0.008, 0.018, dress.skin, depth=depth - 0.02
                )

    def _face(self, center: Array, up: Array, forward: Array, r: float) -> Iterator[Part]:
        size = _EYES.get(self.style, 0.15)
        for sign in (-1, 1):
            eye = center + 0.72 * forward + sign * 0.42 * self._left(r) + 0.08 * up
            depth = center[:, 2] + 0.01 + np.where(eye[:, 2] > center[:, 2] + 0.2 * r, 0.01, -0.03)
            if self.style == "cartoon":
                white = (0.97, 0.97, 0.97)
                yield self._part(f"eye {sign}", eye, eye, size * r * 1.5, size * r * 1.5, white, depth=depth)
            yield self._part(
                f"pupil {sign}", eye, eye, size * r, size * r, _INK, depth=depth + 0.001, outlined=False
            )
        mouth = center + 0.8 * forward - 0.45 * up
        ends = mouth - 0.25 * self._left(r), mouth + 0.25 * self._left(r)
        depth = center[:, 2] + 0.01 + np.where(mouth[:, 2] > center[:, 2], 0.01, -0.03)
        yield self._part("mouth", *ends, 0.1 * r, 0.1 * r, (0.6, 0.2, 0.2), depth=depth, outlined=False)

    def _hair(self, center: Array, up: Array, forward: Array, r: float) -> Iterator[Part]:
        across = np.stack([up[:, 1], -up[:, 0], np.zeros(len(up))], -1)
        top = center + 0.78 * up - 0.3 * forward
        depth = center[:, 2] + 0.03
        color = self.dress.hair
        yield self._part(
            "hair top", top - 0.5 * across, top + 0.5 * across, 0.42 * r, 0.42 * r, color, depth=depth
        )
        if self.dress.haircut == "cap":
            brim = center + 0.6 * up
            yield self._part("hair top", brim, brim + 1.4 * forward, 0.18 * r, 0.12 * r, color, depth=depth)
        else:
            nape = center - 0.62 * forward
            yield self._part(
                "nape", nape + 0.3 * up, nape - 0.15 * up, 0.5 * r, 0.4 * r, color, depth=depth - 0.045
            )

    def _left(self, r: float) -> Array:
        """The head's left-hand side, of the length of its radius."""
        angle = np.deg2rad(self.yaw_F)
        return (r * np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], -1)).astype(np.float32)

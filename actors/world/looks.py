"""How somebody looks: style of drawing, clothes, skin, hair, place and light; drawn apart from motion."""

import colorsys
from dataclasses import dataclass

import numpy as np

Color = tuple[float, float, float]

STYLES = ("flat", "outlined", "shaded", "cartoon", "alien")
TEXTURES = ("plain", "striped", "dotted", "checked")
SCENES = ("beach", "park", "street", "room", "gym", "snow", "night", "stage")
HAIRCUTS = ("short", "long", "bald", "cap")
BOTTOMS = ("pants", "shorts", "skirt")

HELD_OUT_STYLE, HELD_OUT_TEXTURE, HELD_OUT_SCENE = "alien", "checked", "stage"
"""What the small base has never seen."""

_COLORS: dict[str, Color] = {
    "red": (0.83, 0.16, 0.16),
    "orange": (0.95, 0.52, 0.12),
    "yellow": (0.95, 0.82, 0.2),
    "green": (0.18, 0.58, 0.26),
    "blue": (0.16, 0.36, 0.8),
    "purple": (0.5, 0.22, 0.66),
    "pink": (0.95, 0.5, 0.68),
    "white": (0.94, 0.94, 0.93),
    "black": (0.12, 0.12, 0.14),
    "grey": (0.5, 0.52, 0.55),
    "brown": (0.45, 0.29, 0.16),
}
COLORS = tuple(_COLORS)
_HAIR: dict[str, Color] = {
    "black": (0.1, 0.08, 0.08),
    "brown": (0.36, 0.22, 0.12),
    "blond": (0.9, 0.76, 0.4),
    "red": (0.72, 0.3, 0.12),
    "grey": (0.66, 0.66, 0.68),
}
HAIR_COLORS = tuple(_HAIR)
_SKINS: tuple[Color, ...] = (
    (0.98, 0.84, 0.73),
    (0.93, 0.74, 0.58),
    (0.82, 0.6, 0.42),
    (0.66, 0.45, 0.3),
    (0.48, 0.31, 0.2),
    (0.34, 0.22, 0.15),
)
_ALIEN_SKINS: tuple[Color, ...] = ((0.45, 0.78, 0.4), (0.42, 0.68, 0.84), (0.7, 0.5, 0.84), (0.82, 0.8, 0.42))


@dataclass(frozen=True, kw_only=True)
class Dress:
    """What one person wears, and the person's own colours."""

    skin: Color
    haircut: str
    hair_name: str
    hair: Color
    top_name: str
    top: Color
    top_texture: str
    sleeves: bool
    """Whether they reach the wrists."""
    bottom_kind: str
    bottom_name: str
    bottom: Color
    shoes: Color


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a picture shows except who stands how: a style, two people's dress, a place, a light."""

    style: str
    actor: Dress
    partner: Dress
    scene: str
    scene_seed: int
    light: Color
    """Factors of red, green and blue."""
    light_from: float
    """Degrees; 90 is from above."""
    vignette: float

    @property
    def held_out(self) -> bool:
        """Whether the small base has never seen one of its parts."""
        return (
            self.style == HELD_OUT_STYLE
            or self.scene == HELD_OUT_SCENE
            or HELD_OUT_TEXTURE in (self.actor.top_texture, self.partner.top_texture)
        )


def draw_look(seed: int, held_out: bool = False) -> Look:
    """A look; the same seed gives the same one.

    With `held_out` the small base has never seen at least one of style, texture and scene; without, it has
    seen all three.
    """
    rng = np.random.default_rng([seed, 7])
    strange = rng.permutation(3) < rng.integers(1, 4) if held_out else np.zeros(3, bool)
    style = HELD_OUT_STYLE if strange[0] else _pick(rng, STYLES, HELD_OUT_STYLE)
    scene = HELD_OUT_SCENE if strange[1] else _pick(rng, SCENES, HELD_OUT_SCENE)
    warmth = rng.normal(0, 0.04)
    gain = rng.uniform(0.85, 1.08)
    return Look(
        style=style,
        actor=_draw_dress(rng, style, bool(strange[2])),
        partner=_draw_dress(rng, style, False),
        scene=scene,
        scene_seed=int(rng.integers(2**31)),
        light=(gain * (1 + warmth), gain, gain * (1 - warmth)),
        light_from=float(rng.uniform(30, 150)),
        vignette=float(rng.uniform(0, 0.25)),
    )


def look_words(look: Look) -> str:
    """The look of the actor and the place, as a prompt says it."""
    dress = look.actor
    texture = "" if dress.top_texture == "plain" else f"{dress.top_texture} "
    hair = {"bald": "bald head", "cap": f"{dress.hair_name} cap"}.get(dress.haircut)
    hair = hair or f"{dress.haircut} {dress.hair_name} hair"
    return (
        f"{dress.top_name} {texture}shirt, {dress.bottom_name} {dress.bottom_kind}, {hair}, {look.scene}, "
        f"{look.style} style"
    )


def _pick(rng: np.random.Generator, names: tuple[str, ...], without: str) -> str:
    left = [name for name in names if name != without]
    return left[rng.integers(len(left))]


def _draw_dress(rng: np.random.Generator, style: str, strange_texture: bool) -> Dress:
    skins = _ALIEN_SKINS if style == "alien" else _SKINS
    haircut = "bald" if style == "alien" else HAIRCUTS[rng.choice(len(HAIRCUTS), p=(0.45, 0.3, 0.1, 0.15))]
    hair_names = COLORS if haircut == "cap" else HAIR_COLORS
    hair_name = hair_names[rng.integers(len(hair_names))]
    top_name, bottom_name = (COLORS[i] for i in rng.choice(len(COLORS), 2, replace=False))
    texture = HELD_OUT_TEXTURE if strange_texture else _pick(rng, ("plain", *TEXTURES), HELD_OUT_TEXTURE)
    return Dress(
        skin=_near(rng, skins[rng.integers(len(skins))]),
        haircut=haircut,
        hair_name=hair_name,
        hair=_near(rng, (_COLORS if haircut == "cap" else _HAIR)[hair_name]),
        top_name=top_name,
        top=_near(rng, _COLORS[top_name]),
        top_texture=texture,
        sleeves=bool(rng.integers(2)),
        bottom_kind=BOTTOMS[rng.choice(3, p=(0.55, 0.3, 0.15))],
        bottom_name=bottom_name,
        bottom=_near(rng, _COLORS[bottom_name]),
        shoes=_near(rng, _COLORS[COLORS[rng.integers(len(COLORS))]]),
    )


def _near(rng: np.random.Generator, color: Color) -> Color:
    """A shade of the same colour."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    hue = (hue + rng.normal(0, 0.008)) % 1
    saturation = float(np.clip(saturation * rng.uniform(0.85, 1.1), 0, 1))
    return colorsys.hsv_to_rgb(hue, saturation, float(np.clip(value * rng.uniform(0.88, 1.1), 0.04, 1)))

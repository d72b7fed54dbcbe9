"""Drawn people who perform actions, with the whole truth of every picture: joints, flow and masks."""

from .world.actions import ACTIONS, EXTRA_MOTIONS, HELD_OUT_ACTIONS, SEEN_ACTIONS, action_sentence
from .world.clips import WORDS, Clip, caption, make_clip
from .world.looks import Look, draw_look
from .world.motion import Motion, continuations, draw_motion
from .world.skeleton import JOINTS

__all__ = [
    "ACTIONS",
    "EXTRA_MOTIONS",
    "HELD_OUT_ACTIONS",
    "JOINTS",
    "SEEN_ACTIONS",
    "WORDS",
    "Clip",
    "Look",
    "Motion",
    "action_sentence",
    "caption",
    "continuations",
    "draw_look",
    "draw_motion",
    "make_clip",
]

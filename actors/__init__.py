"""Drawn people who perform actions, with the whole truth of every picture: joints, flow and masks."""

from .actions import ACTIONS, EXTRA_MOTIONS, HELD_OUT_ACTIONS, SEEN_ACTIONS, action_sentence
from .clips import WORDS, Clip, caption, make_clip
from .looks import Look, draw_look
from .motion import Motion, continuations, draw_motion
from .skeleton import JOINTS

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

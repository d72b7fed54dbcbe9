"""Clips: a motion in a look, as pictures and their truth."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .actions import ACTIONS, EXTRA_MOTIONS, PROP_WORDS, action_sentence
from .looks import BOTTOMS, COLORS, HAIR_COLORS, HAIRCUTS, SCENES, STYLES, TEXTURES, Look, look_words
from .motion import FPS, Motion, continuations, elsewhere
from .render import Brush, Shot
from .scenes import scene_pixels
from .skeleton import JOINTS, Array, floats
from .stage import Stage

NUM_TRUTHS = 6
"""True continuations that a video is held against."""
_SWAP = [
    JOINTS.index({"l": "r", "r": "l"}[name[0]] + name[1:] if name[1] == "_" else name) for name in JOINTS
]
"""Left joints for right ones: in a mirror the right hand is a left one."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Pictures and what is true of them."""

    frames_FHW3: NDArray[np.uint8]
    joints_FPJ2: Array
    """Pixels, x to the right and y down, of everybody's JOINTS; person 0 is the actor."""
    flow_FHW2: Array
    """For all frames but the last: how far each pixel moves until the next frame."""
    masks_FHW: NDArray[np.uint8]
    """0 background, 1 actor, 2 second person, 3 thing."""
    motion: Motion
    look: Look
    height: float
    """Of the actor when standing, in pixels of the first frame."""
    fps: int = FPS

    @property
    def caption(self) -> str:
        return caption(self.motion, self.look)


def make_clip(motion: Motion, look: Look, *, num_frames: int = 8, size: int = 128) -> Clip:
    """The clip of this motion in this look, the same every time. Sizes count pixels, of a square picture."""
    stage = Stage(motion, look, num_frames, size)
    background = scene_pixels(look.scene, look.scene_seed, size)
    light_HW3 = _light(look, size)
    brush = Brush(stage.parts(), stage.shot, look)
    frames = np.empty((num_frames, size, size, 3), np.uint8)
    masks = np.zeros((num_frames, size, size), np.uint8)
    flow = np.empty((num_frames - 1, size, size, 2), np.float32)
    for f in range(num_frames):
        x, y = _background_places(stage.shot, f)
        pixels = _sampled(background, x, y)
        if f < num_frames - 1:
            flow[f] = _background_flow(stage.shot, f)
        brush.paint(f, pixels, flow[f] if f < num_frames - 1 else None, masks[f])
        frames[f] = np.clip(pixels * light_HW3 * 255 + 0.5, 0, 255)
    clip = Clip(
        frames_FHW3=frames,
        joints_FPJ2=stage.joints(),
        flow_FHW2=flow,
        masks_FHW=masks,
        motion=motion,
        look=look,
        height=float(stage.shot.scale_F[0]),
    )
    return _mirrored(clip) if motion.mirrored else clip


def true_clips(
    motion: Motion, look: Look, *, seed: int, num: int = NUM_TRUTHS, size: int = 128
) -> list[Clip]:
    """Clips that all begin with the motion's first frame and truly go on from it, each in its own way."""
    return [make_clip(one, look, size=size) for one in continuations(motion, num, seed)]


def make_cut_clip(motion: Motion, look: Look, *, num_frames: int = 8, size: int = 128) -> Clip:
    """The clip, but with a first frame in which the same person is elsewhere before the same scene.

    Flow across the cut is NaN. Detail decoders are tried on it: what their picture shows has gone elsewhere.
    """
    clip = make_clip(motion, look, num_frames=num_frames, size=size)
    before = make_clip(elsewhere(motion), look, num_frames=2, size=size)
    for own, other in (
        (clip.frames_FHW3, before.frames_FHW3),
        (clip.joints_FPJ2, before.joints_FPJ2),
        (clip.masks_FHW, before.masks_FHW),
    ):
        own[0] = other[0]
    clip.flow_FHW2[:1] = np.nan
    return clip


def _mirrored(clip: Clip) -> Clip:
    size = clip.frames_FHW3.shape[2]
    return replace(
        clip,
        frames_FHW3=np.ascontiguousarray(clip.frames_FHW3[:, :, ::-1]),
        joints_FPJ2=(clip.joints_FPJ2 * floats([-1, 1]) + floats([size, 0]))[:, :, _SWAP],
        flow_FHW2=np.ascontiguousarray(clip.flow_FHW2[:, :, ::-1] * floats([-1, 1])),
        masks_FHW=np.ascontiguousarray(clip.masks_FHW[:, :, ::-1]),
    )


def caption(motion: Motion, look: Look) -> str:
    """The clip in words: the action, then the look."""
    sentence = action_sentence(motion.action)
    if motion.action == "standing" and motion.prop:
        sentence += f" with {PROP_WORDS[motion.prop]}"
    return f"{sentence}, {look_words(look)}"


def _words() -> tuple[str, ...]:
    sentences = [action_sentence(name) for name in (*ACTIONS, *EXTRA_MOTIONS)]
    looks = [*COLORS, *HAIR_COLORS, *HAIRCUTS, *SCENES, *STYLES, *TEXTURES, *BOTTOMS]
    text = " ".join([*sentences, *PROP_WORDS.values(), *looks, "with shirt hair head style ,"])
    return tuple(sorted(set(text.split())))


WORDS = _words()
"""All that captions consist of, held-out actions' words too."""


def _light(look: Look, size: int) -> Array:
    """Factors (H, W, 3) of the colours: the light's own colour, less of it in the corners."""
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size - 0.5
    corner_HW = 1 - look.vignette * (x**2 + y**2) * 2
    return floats(corner_HW[..., None] * floats(look.light))


def _background_places(shot: Shot, frame: int) -> tuple[Array, Array]:
    """Columns and rows of the scene's picture that lie under the frame's pixels."""
    first = shot.scale_F[0]
    middle = shot.size / 2
    moved = (shot.center_F2[frame] - shot.center_F2[0]) * first * floats([1, -1])
    pixels = (np.arange(shot.size, dtype=np.float32) + 0.5 - middle) * first / shot.scale_F[frame] + middle
    return pixels + moved[0] - 0.5, pixels + moved[1] - 0.5


def _background_flow(shot: Shot, frame: int) -> Array:
    now, later = (_background_places(shot, f) for f in (frame, frame + 1))
    x, y = ((a - b[0]) / (b[1] - b[0]) - np.arange(len(a)) for a, b in zip(now, later, strict=True))
    return np.stack(np.broadcast_arrays(x[None, :], y[:, None]), -1).astype(np.float32)


def _sampled(picture_HW3: Array, x: Array, y: Array) -> Array:
    """The picture at these columns and rows, bilinearly; it repeats to the sides."""
    height, width = picture_HW3.shape[:2]
    y = np.clip(y, 0, height - 1.001)
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    dy, dx = (y - row)[:, None, None].astype(np.float32), (x - column)[None, :, None].astype(np.float32)
    rows = picture_HW3[row] * (1 - dy) + picture_HW3[row + 1] * dy
    return floats(rows[:, column % width] * (1 - dx) + rows[:, (column + 1) % width] * dx)


def clip_video(clip: Clip) -> Tensor:
    """The frames of a clip as a video, FHWC in [0, 1]."""
    return torch.from_numpy(clip.frames_FHW3).float() / 255

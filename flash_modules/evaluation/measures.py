"""Which scores there are, what they need, and the scores of one video."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from .judges.clip import image_alignment, temporal_consistency, text_alignment
from .judges.i3d import SIDE, colours, cosine, flow_values
from .judges.load import Judges
from .looks import leak, looks, reference_likeness
from .metrics import first_frame_transition
from .motion import flicker, motion_agreement, motion_histogram_distance, track_steps

Better = Literal["higher", "lower", "none"]
ARROWS: dict[Better, str] = {"higher": "↑", "lower": "↓", "none": "0 is best"}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of the table."""

    key: str
    title: str
    better: Better
    digits: int
    """Behind the point."""
    meaning: str

    @property
    def heading(self) -> str:
        return f"{self.title} ({ARROWS[self.better]})"


def _measure(key: str, title: str, better: Better, digits: int, meaning: str) -> Measure:
    return Measure(key=key, title=title, better=better, digits=digits, meaning=meaning)


TEXT = _measure(
    "text_alignment", "Text Alignment", "higher", 2, "CLIP's cosine of each frame and the prompt, x 100"
)
IMAGE = _measure(
    "image_alignment", "Image Alignment", "higher", 2, "CLIP's cosine of each frame and the picture, x 100"
)
STEADY = _measure(
    "temporal_consistency", "Temporal Consistency", "higher", 2, "CLIP's cosine of neighbouring frames, x 100"
)
RGB = _measure(
    "cosine_rgb", "Cosine RGB", "higher", 4, "cosine of I3D's features of the video and its true clip"
)
FLOW = _measure("cosine_flow", "Cosine Flow", "higher", 4, "the same on RAFT's optical flow")
AGREEMENT = _measure(
    "motion_agreement",
    "motion agreement",
    "higher",
    3,
    "directions of tracks like a true clip's; a still picture: 0",
)
HISTOGRAM = _measure(
    "motion_histogram",
    "motion histogram distance",
    "lower",
    3,
    "velocities and accelerations, 0 = like a true clip's",
)
JUMP = _measure(
    "first_jump", "first jump, %", "none", 2, "change after frame 0 above the later ones'; a still: 0"
)
FLICKER = _measure(
    "flicker", "flicker, %", "lower", 2, "pixels against their neighbours in time, along the motion"
)
LIKENESS = _measure(
    "likeness", "likeness", "higher", 3, "looks of frames like the picture's; a still picture: 1"
)
LEAK = _measure("leak", "leak", "lower", 3, "0 = the picture's look, 1 = that of the nearest training clip")
PER_VIDEO = (TEXT, IMAGE, STEADY, RGB, FLOW, AGREEMENT, HISTOGRAM, JUMP, FLICKER, LIKENESS, LEAK)


@dataclass
class Features:
    """What is kept of a video of which others are judged; its frames are not."""

    steps_NF2: Tensor
    rgb_C: Tensor | None = None
    flow_C: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What one video is held against."""

    picture_1HWC: Tensor
    """Of the video's size."""
    prompt: str | None = None
    truth: Features | None = None
    """The true clip of its own name."""
    others: Sequence[Features] = ()
    """True clips of other names, of which the nearest counts for motion where there is no own."""
    training_LKQ: Sequence[Tensor] = field(default=(), repr=False)
    """Looks of training clips."""


def features(video_FHWC: Tensor, judges: Judges) -> Features:
    """Motion, and what the judges of single videos see."""
    flow_C = None
    if judges.raft and judges.i3d_flow:
        flow_C = judges.i3d_flow.features(flow_values(judges.raft.flow(video_FHWC, SIDE)))
    rgb_C = judges.i3d_rgb.features(colours(video_FHWC)) if judges.i3d_rgb else None
    return Features(track_steps(video_FHWC), rgb_C, flow_C)


def score(video_FHWC: Tensor, own: Features, standard: Standard, judges: Judges) -> dict[str, float]:
    """All scores of a video (by keys of PER_VIDEO) for which there is what they need."""
    found = {
        JUMP.key: 100 * first_frame_transition(video_FHWC).difference,
        FLICKER.key: flicker(video_FHWC),
        LIKENESS.key: reference_likeness(video_FHWC[1:], standard.picture_1HWC).mean().item(),
    }
    found |= _clip_scores(video_FHWC, standard, judges)
    found |= _truth_scores(own, standard)
    if len(standard.training_LKQ):
        own_look = looks(standard.picture_1HWC)
        found[LEAK.key] = leak(looks(video_FHWC), own_look, standard.training_LKQ)
    return found


def _clip_scores(video_FHWC: Tensor, standard: Standard, judges: Judges) -> dict[str, float]:
    if judges.clip is None:
        return {}
    frames_FC = judges.clip.frame_features(video_FHWC)
    picture_1C = judges.clip.frame_features(standard.picture_1HWC)
    found = {IMAGE.key: image_alignment(frames_FC, picture_1C), STEADY.key: temporal_consistency(frames_FC)}
    if standard.prompt:
        found[TEXT.key] = text_alignment(frames_FC, judges.clip.text_features(standard.prompt))
    return found


def _truth_scores(own: Features, standard: Standard) -> dict[str, float]:
    truths = [standard.truth] if standard.truth else standard.others
    if not truths:
        return {}
    pairs = [_common(own.steps_NF2, truth.steps_NF2) for truth in truths]
    found = {
        AGREEMENT.key: max(motion_agreement(*pair) for pair in pairs),
        HISTOGRAM.key: min(motion_histogram_distance(*pair) for pair in pairs),
    }
    if standard.truth:
        for measure, mine, true in (
            (RGB, own.rgb_C, standard.truth.rgb_C),
            (FLOW, own.flow_C, standard.truth.flow_C),
        ):
            if mine is not None and true is not None:
                found[measure.key] = cosine(mine, true)
    return found


def _common(own_NF2: Tensor, true_MF2: Tensor) -> tuple[Tensor, Tensor]:
    """The steps that both have: a true clip may end earlier."""
    count = min(own_NF2.shape[1], true_MF2.shape[1])
    return own_NF2[:, :count], true_MF2[:, :count]

"""Clips to learn from that other nodes give: VIDEOs with texts, as core's Load Video-Text node has them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from comfy_api.latest import Input
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ...files.containers import reasons
from ...files.footage import Footage
from ...training.clips import Clip, Clips, Skipped, clip_hashes, find_clips
from ...training.twins import check_count, with_twins

ACTION = "videos"
"""The action of clips that have no folder."""


def given_clips(
    folder: Path,
    prompt: str,
    videos: Sequence[Input.Video] = (),
    texts: Sequence[str] = (),
    twins: Sequence[Input.Video] = (),
) -> Clips:
    """The clips of a folder, or the videos in its place if there are some, with their twins if there are any.

    A video without a text has the prompt. Raises ValueError if none can be used, or as `with_twins`.
    """
    if not videos:
        found = find_clips([folder], [prompt] if prompt.strip() else [])
        return _joined(found, range(len(found.used)), len(found.used), twins)
    captions = _captions(len(videos), prompt, texts)
    last = LastVideo()
    used: list[Clip] = []
    places: list[int] = []
    skipped: list[Skipped] = []
    seen: dict[str, Path] = {}
    for number, (video, caption) in enumerate(zip(videos, captions, strict=True), 1):
        name = Path(ACTION) / f"video {number}"
        try:
            clip = video_clip(name, video, caption, last)
            (sha256,) = clip_hashes([clip])
            twin = seen.setdefault(sha256, name)
            if twin != name:
                raise ValueError(f"it is {twin.name} again")
            used.append(clip)
            places.append(number - 1)
        except ValueError as error:
            skipped.append(Skipped(name, str(error)))
    if not used:
        lines = [f"  {one.path.name}: {one.reason}" for one in skipped[:10]]
        raise ValueError("\n".join(["None of the videos can be used:", *lines]))
    return _joined(Clips(tuple(used), tuple(skipped)), places, len(videos), twins)


def _joined(clips: Clips, places: Sequence[int], count: int, twins: Sequence[Input.Video]) -> Clips:
    """The clips with their twins, if there are any: of so many clips these, at `places`, are used."""
    if not twins:
        return clips
    check_count(len(twins), count)
    last = LastVideo()  # of their own: clips and twins are read in turns
    return replace(clips, used=with_twins(clips.used, [_twin(place, twins[place], last) for place in places]))


def _twin(place: int, video: Input.Video, last: "LastVideo") -> Clip:
    name = Path(ACTION) / f"twin {place + 1}"
    try:
        return video_clip(name, video, name.name, last)
    except ValueError as error:
        raise ValueError(f"The {name.name} cannot be used: {error}. Mend it, or give no twins.") from error


def _captions(count: int, prompt: str, texts: Sequence[str]) -> list[str]:
    """One for each video; a single text is for all."""
    if len(texts) not in (0, 1, count):
        raise ValueError(
            f"There are {len(texts)} texts for {count} videos: connect both from one node, or one text for "
            "all."
        )
    told = [" ".join(text.split()) for text in (texts if len(texts) == count else [*texts, ""][:1] * count)]
    captions = [text or " ".join(prompt.split()) for text in told]
    if not all(captions):
        raise ValueError(
            "A video has no text, and there is no `prompt`: write what is seen, 'a person is jumping' for "
            "example."
        )
    return captions


@dataclass
class LastVideo:
    """The video that was read last, in 8 bits: entries of a clip are made one after the other."""

    video: Input.Video | None = None
    short_side: int | None = None
    frames_FCHW: Tensor | None = None


@dataclass(frozen=True)
class _Pictures:
    """Fulfils `Pictures`. A video is decoded as a whole, whichever frames are asked for."""

    video: Input.Video
    sha256: str
    last: LastVideo

    def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
        """Frames (F, 3, H, W) in [0, 1]."""
        last = self.last
        if last.frames_FCHW is None or (last.video, last.short_side) != (self.video, short_side):
            last.frames_FCHW = None  # two at a time may be too much
            frames_FCHW = _shrunk(_decoded(self.video)[0], short_side)
            last.video, last.short_side, last.frames_FCHW = self.video, short_side, frames_FCHW
        return last.frames_FCHW[list(indices)].float() / 255


def video_clip(name: Path, video: Input.Video, caption: str, last: LastVideo) -> Clip:
    """A VIDEO as a clip. Raises ValueError, with the reason, if it is none."""
    with reasons():
        frames_FCHW, rate = _decoded(video)
    num_frames, _, height, width = frames_FCHW.shape
    if num_frames < 2:
        raise ValueError(f"a clip needs 2 frames or more, but this has {num_frames}")
    times = tuple(i / rate for i in range(num_frames))
    digest = hashlib.sha256(repr((tuple(frames_FCHW.shape), rate)).encode())
    for frame_CHW in frames_FCHW:
        digest.update(frame_CHW.numpy().tobytes())
    return Clip(
        path=name,
        action=ACTION,
        caption=caption,
        footage=Footage(times, num_frames / rate, (width, height), rotation=0),
        pictures=_Pictures(video, digest.hexdigest(), last),
    )


def _decoded(video: Input.Video) -> tuple[Tensor, float]:
    """All frames (F, 3, H, W) as bytes, trimmed as the video is, and how many make a second.

    What is transparent becomes white. `get_components` alone takes notice of a trim.
    """
    parts = video.get_components()
    alpha = getattr(parts, "alpha", None)

    def pictures() -> Iterator[Tensor]:
        for number, image_HWC in enumerate(parts.images):
            if alpha is not None:
                image_HWC = image_HWC * alpha[number] + (1 - alpha[number])
            yield (image_HWC.float().clamp(0, 1) * 255).round().to(torch.uint8)

    frames = [*pictures()]
    stacked_FHWC = torch.stack(frames) if frames else torch.zeros(0, 1, 1, 3, dtype=torch.uint8)
    return rearrange(stacked_FHWC, "f h w c -> f c h w").contiguous(), float(parts.frame_rate)


def _shrunk(frames_FCHW: Tensor, short_side: int | None) -> Tensor:
    """Those with a longer short side, made smaller to it."""
    height, width = frames_FCHW.shape[-2:]
    if short_side is None or short_side >= min(height, width):
        return frames_FCHW
    shrink = short_side / min(height, width)
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    return torch.cat(
        [interpolate(one_1CHW, size, mode="bilinear", antialias=True) for one_1CHW in frames_FCHW.split(1)]
    )

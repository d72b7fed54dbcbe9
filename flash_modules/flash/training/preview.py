"""What training will see: a line for each clip, and a picture of original and augmented frames."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...files.video_files import as_picture
from ...training.clips import Clip, Clips, Skipped
from ...training.sampling import SamplingConfig, Taken, seeded
from ..augment import AugmentConfig
from .clip_draw import draw_clip, drawn_pair

MAX_SHOWN = 16
"""Clips in the contact sheet; the lines tell of all."""

_MANY_CLIPS = 100
_SLOWEST_FPS = 3.0
"""Below it, an action of AnimateDiff's usual 8 frames per second is seen in steps."""
_STILL = 3 / 255
"""Parts of the picture that change less from frame to frame are taken for noise of the compression."""

_TILE, _MARGIN, _TEXT = 96, 8, 18
"""Pixels of the contact sheet."""
_MOST_TILES = 32
"""Frames of a clip in the contact sheet."""


@dataclass(frozen=True)
class _Seen:
    clip: Clip
    taken: Taken
    notes: tuple[str, ...]
    strips: tuple[Tensor, Tensor] | None
    """Tiles (3, H, F W) of original and twin; only of clips that are shown."""


def preview_clips(
    clips: Clips,
    sampling: SamplingConfig,
    augment: AugmentConfig,
    *,
    seed: int,
    on_line: Callable[[str], None],
    aside: Collection[int] = (),
    caption_note: Callable[[str], str | None] = lambda caption: None,
) -> Image.Image:
    """Say in lines what is taken of every clip, and draw some with their twins.

    Frames and augmentation are one draw of the many that training makes. `aside` are the indices of clips
    that it keeps aside; `caption_note` says what is wrong with a caption, if anything is.
    """
    shown = _shown(clips.used)
    paths = [one.path for one in clips.used]
    paths += [one.path for one in (*clips.skipped, *clips.others)]
    width = max(map(len, map(_name, paths)))
    seen: list[_Seen] = []
    for index, clip in enumerate(clips.used):
        seen.append(_look(clip, sampling, augment, seeded(seed, "preview", index), index in shown))
        on_line(f"{_name(clip.path):{width}}  {_taken_line(seen[-1])}")
        if index in aside:
            on_line(f"{'':{width}}  kept aside for the exam: no step learns from it")
        for note in (*seen[-1].notes, *_caption_notes(clip, caption_note)):
            on_line(f"{'':{width}}  ! {note}")
    for one in clips.skipped:
        on_line(f"{_name(one.path):{width}}  skipped: {one.reason}")
    for one in clips.others:
        on_line(f"{_name(one.path):{width}}  left out: {one.reason}")
    for line in _summary(seen, clips.skipped, augment):
        on_line(line)
    return _sheet(seen)


def _shown(clips: Sequence[Clip]) -> set[int]:
    """Clips spread over all, so that every action has some."""
    count = min(MAX_SHOWN, len(clips))
    return {i * len(clips) // count for i in range(count)}


def _look(
    clip: Clip, sampling: SamplingConfig, augment: AugmentConfig, generator: torch.Generator, show: bool
) -> _Seen:
    drawn = draw_clip(clip, sampling, augment, generator)
    notes = tuple(_notes(clip, drawn.taken, drawn.video_FCHW, augment, sampling))
    if not show:
        return _Seen(clip, drawn.taken, notes, strips=None)
    pair = drawn_pair(drawn, augment)
    tile = _TILE, _tile_width(augment)
    original, twin = (torch.cat([*adaptive_avg_pool2d(_some(video), tile)], dim=-1) for video in pair)
    return _Seen(clip, drawn.taken, notes, (original, twin))


def _tile_width(augment: AugmentConfig) -> int:
    height, width = augment.shape
    return round(_TILE * width / height)


def _some(video_FCHW: Tensor) -> Tensor:
    """Frames from first to last, no more than the sheet has room for."""
    count = min(len(video_FCHW), _MOST_TILES)
    return video_FCHW[torch.linspace(0, len(video_FCHW) - 1, count).round().long()]


def _caption_notes(clip: Clip, caption_note: Callable[[str], str | None]) -> Iterator[str]:
    note = caption_note(clip.caption)
    if note:
        yield f"{clip.caption_file.name}: {note}" if clip.caption_file else note


def _notes(
    clip: Clip, taken: Taken, video_FCHW: Tensor, augment: AugmentConfig, sampling: SamplingConfig
) -> Iterator[str]:
    """What the user may want to mend in this clip, and what was done to it."""
    yield from clip.notes
    num_frames = len(taken.indices)
    repeats = _repeats(video_FCHW)
    again = num_frames - len(set(taken.indices))
    if repeats == num_frames - 1:
        yield "nothing moves in it: take it away"
    elif again and sampling.fps:
        yield f"{clip.fps:.3g} frames a second are fewer than {taken.fps:.3g}: {again} are shown again"
    elif again:
        yield f"too few frames at even times: {again} are taken twice or more"
    elif repeats:
        yield f"{repeats} of {num_frames} frames repeat the one before: cut pauses and still pictures out"
    if num_frames < sampling.num_frames:
        yield f"it is short: {num_frames} of {sampling.num_frames} frames are taken"
    if taken.fps < _SLOWEST_FPS:
        yield f"{taken.fps:.1f} frames per second show a motion in steps: cut it to the action alone"
    height, width = augment.shape
    if clip.size[0] < width or clip.size[1] < height:
        yield f"smaller than {_pixels(augment)} pixels, and so made larger"


def _repeats(video_FCHW: Tensor) -> int:
    """How many frames show what the frame before shows."""
    height, width = video_FCHW.shape[-2:]
    cells = max(1, height // 8), max(1, width // 8)
    changes_FC = (video_FCHW[1:] - video_FCHW[:-1]).abs()
    blocks_FCHW = adaptive_avg_pool2d(changes_FC, cells)
    return int((blocks_FCHW.amax(dim=(1, 2, 3)) < _STILL).sum())


def _taken_line(seen: _Seen) -> str:
    clip, taken = seen.clip, seen.taken
    turned = f", turned by {clip.rotation} degrees" if clip.rotation else ""
    turned += ", mirrored" if clip.footage.mirrored else ""
    first, last = taken.indices[0], taken.indices[-1]
    lasts = (len(taken.indices) - 1) / taken.fps + 1 / clip.fps
    return (
        f"{clip.size[0]}x{clip.size[1]}{turned}, {clip.num_frames} frames, {clip.duration:.1f} s, "
        f"{clip.fps:.3g} fps -> frames {first} to {last} at {taken.fps:.3g} fps, "
        f"{lasts:.1f} s: '{clip.caption}'"
    )


def _summary(seen: Sequence[_Seen], skipped: Sequence[Skipped], augment: AugmentConfig) -> Iterator[str]:
    """Totals, and what the user may want to mend in all clips together."""
    actions = Counter(one.clip.action for one in seen)
    listed = ", ".join(f"'{name}' {count}" for name, count in actions.items())
    yield f"{len(seen)} of {len(seen) + len(skipped)} clips used: {listed}."
    sizes = Counter("{}x{}".format(*one.clip.size) for one in seen)
    if len(sizes) > 1:
        yield f"! {_few(sizes)}: the clips differ in size. All are cut to {_cut(augment)}."
    slowest, fastest = (pick(seen, key=lambda one: one.taken.fps) for pick in (min, max))
    if fastest.taken.fps > 1.5 * slowest.taken.fps:
        yield (
            f"! Clips are seen at {slowest.taken.fps:.3g} ({_name(slowest.clip.path)}) to "
            f"{fastest.taken.fps:.3g} ({_name(fastest.clip.path)}) frames per second: the same motion would "
            "be learned slow and fast. Cut clips to like lengths, or choose another sampling."
        )
    if len(seen) > _MANY_CLIPS:
        yield f"! {len(seen)} clips are very many: 4 to 16 for each action are enough, and quicker to see."
    if len(seen) > MAX_SHOWN:
        yield f"The picture shows {MAX_SHOWN} of the {len(seen)} clips."


def _pixels(augment: AugmentConfig) -> str:
    return str(augment.size) if augment.width is None else f"{augment.width}x{augment.size}"


def _cut(augment: AugmentConfig) -> str:
    shapes = "squares of " if augment.width is None else ""
    return f"{shapes}{_pixels(augment)} pixels"


def _few(counts: Counter[str]) -> str:
    common = [f"{count} of {name}" for name, count in counts.most_common(3)]
    return ", ".join([*common, "and others"] if len(counts) > 3 else common)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _sheet(seen: Sequence[_Seen]) -> Image.Image:
    """Originals above their twins, a clip below the other, with their names."""
    shown = [one for one in seen if one.strips]
    row = _TEXT + 2 * _TILE + _MARGIN
    width = 2 * _MARGIN + max(one.strips[0].shape[-1] for one in shown if one.strips)
    sheet = Image.new("RGB", (width, _MARGIN + len(shown) * row), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for top, one in zip(range(_MARGIN, sheet.height, row), shown, strict=False):
        assert one.strips
        draw.text((_MARGIN, top), f"{_name(one.clip.path)}: {_taken_line(one)}", fill="black", font=font)
        for place, strip_CHW in enumerate(one.strips):
            strip = as_picture(rearrange(strip_CHW, "c h w -> h w c"))
            sheet.paste(strip, (_MARGIN, top + _TEXT + place * _TILE))
    return sheet

"""Twins from elsewhere: which are taken, which are refused, and what of them is learned from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flash_pack.flash_modules.files.footage import Footage
from flash_pack.flash_modules.training import twins as room
from flash_pack.flash_modules.training.clips import Clip
from flash_pack.flash_modules.training.twins import with_twins
from flash_pack.tests.core.drawn_twins import FPS, F, H, Shown, W, as_clip, drawn, drawn_clip

NAMES = ("a.mp4", "b.mp4", "c.mp4")


def clips() -> list[Clip]:
    return [drawn_clip(i, 10 + i, name) for i, name in enumerate(NAMES)]


def twins(order: Sequence[int] = (0, 1, 2)) -> list[Clip]:
    return [drawn_clip(i, 20 + i, f"twin {i}") for i in order]


def test_each_clip_gets_the_twin_in_its_place() -> None:
    given, theirs = clips(), twins()
    joined = with_twins(given, theirs)
    assert [one.twin for one in joined] == theirs
    assert [replace(one, twin=None) for one in joined] == given
    assert all(one.notes == () for one in joined)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_another_number_of_twins_is_refused(count: int) -> None:
    words = f"There are {count} twins for 3 clips: give one of each clip, in the same order"
    with pytest.raises(ValueError, match=words):
        with_twins(clips(), [drawn_clip(i, 20 + i) for i in range(count)])


@pytest.mark.parametrize(
    ("twin", "words"),
    [
        (drawn_clip(1, 21, num_frames=F - 1), "has 23 frames, but the clip has 24: make it of all of them"),
        (
            as_clip(drawn(1, 21), fps=9.0),
            r"lasts 2\.67 s, but the clip lasts 3\.00 s: give it the clip's 8 fr",
        ),
        (
            as_clip(drawn(1, 21, size=(40, 40))),
            "has 40x40 pixels, but the clip has 60x40: make it of whole fr",
        ),
        (as_clip(drawn(1, 21).flip(-1)), "is mirrored: mirror it once more"),
        (drawn_clip(4, 21), "does not show the clip's motion: make it of this clip, frame by frame"),
        (as_clip(drawn(1, 21)[:1].expand(F, -1, -1, -1)), "does not show the clip's motion"),
        (as_clip((drawn(1, 11) + 0.005).clamp(0, 1)), "looks as the clip does: give one in another look"),
    ],
)
def test_a_wrong_twin_is_refused_in_a_sentence(twin: Clip, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^The twin of b\.mp4 {words}.*\.$"):
        with_twins(clips(), [twins()[0], twin, twins()[2]])


def test_twins_in_another_order_are_refused() -> None:
    words = r"^The twin of a\.mp4 fits worse than that of c\.mp4: give twins in the order of the clips\.$"
    with pytest.raises(ValueError, match=words):
        with_twins(clips(), twins((2, 1, 0)))


@pytest.mark.parametrize(("shift", "words"), [(2, "late"), (-3, "early")])
def test_a_twin_that_begins_elsewhere_is_refused(shift: int, words: str) -> None:
    long, other = drawn(1, 11, F + 6), drawn(1, 21, F + 6)
    clip, twin = as_clip(long[3 : 3 + F]), as_clip(other[3 - shift : 3 - shift + F])
    seconds = f"{abs(shift) / FPS:.2g}"
    with pytest.raises(ValueError, match=rf"^The twin of a\.mp4 is {seconds} s {words}: cut both so that"):
        with_twins([clip], [twin])


@pytest.mark.parametrize("size", [(24, 36), (48, 72), (40, 61)])
def test_a_twin_may_have_another_size(size: tuple[int, int]) -> None:
    twin_FCHW = interpolate(drawn(1, 21), size, mode="bilinear", antialias=True)
    (one,) = with_twins([drawn_clip(1, 11)], [as_clip(twin_FCHW)])
    assert one.notes == ()


def test_a_rate_that_is_rounded_is_the_same() -> None:
    with_twins([as_clip(drawn(1, 11), fps=7.992)], [as_clip(drawn(1, 21), fps=8.0)])


def flickering() -> Tensor:
    """The right motion below noise of its look."""
    noise = torch.Generator().manual_seed(0)
    flicker_FCHW = interpolate(torch.randn(F, 3, 6, 6, generator=noise), (H, W), mode="bicubic")
    return (drawn(1, 21) + 0.5 * flicker_FCHW).clamp(0, 1)


@pytest.mark.parametrize("twin_FCHW", [flickering(), drawn(7, 21)])
def test_where_it_is_not_sure_it_is_said(twin_FCHW: Tensor) -> None:
    """Of the right motion below noise, and of one that is alike by chance."""
    (one,) = with_twins([drawn_clip(1, 11)], [as_clip(twin_FCHW)])
    assert one.notes == ("its twin: it is not sure that it shows the clip's motion; look at both",)


@pytest.mark.parametrize("clip_FCHW", [drawn(1, 11, 6), drawn(1, 11)[:1].expand(F, -1, -1, -1)])
def test_where_too_little_moves_nothing_is_refused(clip_FCHW: Tensor) -> None:
    twin = as_clip(drawn(7, 21, len(clip_FCHW)))
    (one,) = with_twins([as_clip(clip_FCHW)], [twin])
    assert one.notes == ("its twin: too little moves to see whether it shows the clip's motion",)


def test_notes_of_a_twins_file_are_told_with_those_of_its_clip() -> None:
    def noted(clip: Clip, note: str) -> Clip:
        return replace(clip, footage=replace(clip.footage, notes=(note,)))

    (one,) = with_twins([noted(drawn_clip(1, 11), "it is dark")], [noted(drawn_clip(1, 21), "it is HDR")])
    assert one.notes == ("it is dark", "its twin: it is HDR")
    (doubtful,) = with_twins([drawn_clip(1, 11)], [noted(as_clip(flickering()), "it is HDR")])
    assert [note.split(";")[0] for note in doubtful.notes] == [
        "its twin: it is HDR",
        "its twin: it is not sure that it shows the clip's motion",
    ]


def test_where_another_twin_fits_a_little_better_it_is_said() -> None:
    """Of two clips that move alike: which twin is whose cannot be told."""
    grain = 0.1 * torch.randn(F, 3, H, W, generator=torch.Generator().manual_seed(0))
    grainy = as_clip((drawn(1, 21) + grain).clamp(0, 1))
    one, other = with_twins([drawn_clip(1, 11), drawn_clip(1, 12)], [grainy, drawn_clip(1, 22)])
    assert one.notes == ("its twin: it is not sure that it shows the clip's motion; look at both",)
    assert other.notes == ()


def test_changes_are_looked_at_over_an_eighth_of_a_second() -> None:
    """Of 24 frames a second over 3, and not over one, which shows more grain than motion."""
    video_FCHW = drawn(1, 11)
    seen = room._Seen.of(as_clip(video_FCHW, fps=24.0), as_clip(drawn(1, 21), fps=24.0))
    changes_FHW = (video_FCHW[3:] - video_FCHW[:-3]).abs().mean(dim=1)
    cell = changes_FHW[:, 15:20, 22:30].mean(dim=(1, 2)).sqrt()  # of 5 x 7.5 pixels
    torch.testing.assert_close(seen.motion_FHW[:, 3, 3], cell)


def test_of_a_long_clip_some_frames_are_looked_at_from_end_to_end() -> None:
    asked: list[Sequence[int]] = []

    class Counted(Shown):
        def read(self, indices: Sequence[int], short_side: int | None) -> Tensor:
            asked.append(indices)
            assert short_side == 64
            return super().read(indices, short_side)

    def long(look: int) -> Clip:
        frames = 1000
        footage = Footage(tuple(i / 50 for i in range(frames)), frames / 50, (W, H), rotation=0)
        video_FCHW = drawn(1, look, frames // 5).repeat_interleave(5, dim=0)
        return Clip(path=Path("a"), action="", caption="", footage=footage, pictures=Counted(video_FCHW))

    (one,) = with_twins([long(11)], [long(21)])
    assert one.notes == ()
    assert [list(indices) for indices in asked] == [[*range(0, 1000, 6)]] * 2


def test_a_fit_is_the_correlation_of_where_and_when_something_changes() -> None:
    """As in slow loops; what changes everywhere at once, or always in one place, counts for nothing."""
    draws = torch.Generator().manual_seed(3)
    one, other = (torch.rand(5, 3, 4, generator=draws, dtype=torch.float64) for _ in range(2))

    def left(motion: Tensor) -> list[float]:
        out = []
        for f in range(5):
            for y in range(3):
                for x in range(4):
                    always = sum(float(motion[g, y, x]) for g in range(5)) / 5
                    at_once = sum(float(motion[f, v, u]) for v in range(3) for u in range(4)) / 12
                    out.append(float(motion[f, y, x]) - always - at_once + float(motion.mean()))
        return out

    a, b = left(one), left(other)
    expected = sum(i * j for i, j in zip(a, b, strict=True))
    expected /= (sum(i * i for i in a) * sum(j * j for j in b)) ** 0.5
    assert room._fit(one, other) == pytest.approx(expected, abs=1e-12)
    flicker_F11, always_HW = torch.rand(5, 1, 1, generator=draws), torch.rand(3, 4, generator=draws)
    assert room._fit(one, 2 * other + flicker_F11 + always_HW) == pytest.approx(expected, abs=1e-7)

"""Frames and crops of the one clip."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flash_pack.flash_modules.files.footage import Footage
from flash_pack.flash_modules.flexiact.training.views import Part, ViewConfig, cut_frames, fill, views
from flash_pack.flash_modules.training.clips import Clip

HEIGHT, WIDTH = 40, 60


class StubClip(Clip):
    """A clip whose frame i is grey of i / 200, with a ramp to the right and down."""

    def read(self, indices: object, short_side: int | None = None) -> Tensor:
        assert short_side == 1080
        assert isinstance(indices, tuple)
        grey = torch.tensor(indices)[:, None, None] / 200
        ramp = torch.linspace(0, 0.2, WIDTH)[None, :] + torch.linspace(0, 0.3, HEIGHT)[:, None]
        return (grey + ramp)[:, None].expand(-1, 3, -1, -1)


def _clip(frames: int = 100, fps: float = 20.0, first: float = 0.0) -> Clip:
    times = tuple(first + i / fps for i in range(frames))
    footage = Footage(times, first + frames / fps, (WIDTH, HEIGHT), 0)
    return StubClip(path=Path("clip.mp4"), action="", caption="", footage=footage)


def test_frames_are_spread_from_first_to_last() -> None:
    cut = cut_frames(_clip(97), ViewConfig())
    assert cut.indices == tuple(range(0, 97, 2))
    assert cut.note == ""


@pytest.mark.parametrize("first", [0.0, 1.5])
def test_frames_lie_within_the_cut(first: float) -> None:
    """Seconds are counted from the clip's first frame."""
    cut = cut_frames(_clip(200, first=first), ViewConfig(start=2.0, end=6.8))
    assert cut.indices == tuple(range(40, 137, 2))


def test_a_short_clip_shows_frames_twice_and_says_so() -> None:
    cut = cut_frames(_clip(25), ViewConfig())
    assert (cut.indices[0], cut.indices[-1], len(cut.indices)) == (0, 24, 49)
    assert set(cut.indices) == set(range(25))
    assert cut.note == "clip.mp4 has 25 frames there, and some are shown twice to make 49."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"start": 5.0}, "lasts 5.00 s, and the cut goes from 5 to 5 s"),
        ({"end": 5.1}, "lasts 5.00 s, and the cut goes from 0 to 5.1 s"),
    ],
)
def test_a_cut_beyond_the_clip_is_refused(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cut_frames(_clip(), ViewConfig(**changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frames": 50}, "`frames` must be 4 n . 1, such as 49, 33 or 25, but it is 50"),
        ({"frames": 1}, "`frames` must be"),
        ({"crop": 0}, "`crop` is a share"),
        ({"columns": 0}, "must be 1 crop or more, but there are 0 x 4"),
        ({"start": 2.0, "end": 1.0}, "The cut goes from 2.0 to 1.0 s"),
        ({"start": float("nan")}, "The cut goes from nan"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ViewConfig(**changes)


def test_twelve_crops_of_08_lie_from_edge_to_edge() -> None:
    config = ViewConfig(frames=5, height=32, width=48)  # a crop's own size: nothing is resized
    found = list(views(Part(_clip(), cut_frames(_clip(), config), config)))
    assert len(found) == config.num_views == 12
    video_FCHW = _clip().read(cut_frames(_clip(), config).indices, 1080)
    for number, view in enumerate(found):
        top, left = (0, 3, 5, 8)[number // 3], (0, 6, 12)[number % 3]
        wanted = video_FCHW[..., top : top + 32, left : left + 48]
        torch.testing.assert_close(view, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(20, 60), (40, 30), (16, 24)])
def test_a_video_is_resized_to_cover_and_its_centre_taken(height: int, width: int) -> None:
    video_FCHW = torch.rand(2, 3, 40, 60)
    scale = max(height / 40, width / 60)
    size = round(40 * scale), round(60 * scale)
    large = interpolate(video_FCHW, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    y, x = (size[0] - height) // 2, (size[1] - width) // 2
    found = fill(video_FCHW, height, width)
    torch.testing.assert_close(found, large[..., y : y + height, x : x + width])

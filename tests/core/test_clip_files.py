"""Clips in files of every kind: read at the right times, and refused with a reason."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from PIL import Image

from flash_pack.flash_modules.files import clip_files
from flash_pack.flash_modules.files.clip_files import VIDEO_SUFFIXES, examine
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.small_clips import (
    CODECS,
    H,
    W,
    frames_shown,
    only_clip,
    pictures,
    write_animation,
    write_folder,
    write_video,
)


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 44100).numpy(), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, part: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


# Reading


@pytest.mark.parametrize("suffix", [*CODECS, ".MP4"])
def test_every_container_gives_every_frame_where_it_belongs(tmp_path: Path, suffix: str) -> None:
    assert set(CODECS) == set(VIDEO_SUFFIXES)
    write_video(tmp_path / f"a{suffix}")
    found = only_clip(tmp_path)
    assert (found.num_frames, found.size, found.rotation) == (20, (W, H), 0)
    assert found.fps == pytest.approx(25, abs=0.1)
    assert found.duration == pytest.approx(0.8, abs=0.01)
    assert frames_shown(found.read(range(20))) == list(range(20))
    for i in range(20):
        assert frames_shown(found.read([i])) == [i]
    assert frames_shown(found.read([7, 3, 3])) == [7, 3, 3]


def test_avi_with_b_frames_is_read_in_order(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", codec="h264")
    assert frames_shown(only_clip(tmp_path).read(range(20))) == list(range(20))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animations_are_read_with_their_times(tmp_path: Path, suffix: str) -> None:
    durations = [40] * 10 + [100] * 10
    write_animation(tmp_path / f"a{suffix}", duration=durations)
    found = only_clip(tmp_path)
    assert found.footage.times == pytest.approx([sum(durations[:i]) / 1000 for i in range(20)])
    assert found.duration == pytest.approx(1.4)
    assert frames_shown(found.read([0, 13, 13, 19, 2])) == [0, 13, 13, 19, 2]


def test_gif_frames_without_duration_last_as_long_as_in_browsers(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.gif", 4, duration=[0, 10, 20, 50])
    assert only_clip(tmp_path).footage.times == pytest.approx([0, 0.1, 0.2, 0.22])


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_transparent_parts_become_white(tmp_path: Path, suffix: str) -> None:
    clear = list(pictures(6, background="#00000000"))
    options = {"disposal": 2} if suffix == ".gif" else {"lossless": True}
    write_animation(tmp_path / f"a{suffix}", pictures=clear, **options)
    video_FCHW = only_clip(tmp_path).read(range(6))
    assert torch.all(
        video_FCHW[..., 20:30, :] == 1
    )  # in every frame: nothing of the frame before shines through
    assert frames_shown(video_FCHW[:, :, :, :] * (video_FCHW.amin(1, keepdim=True) < 0.9)) == list(range(6))


def test_transparent_video_becomes_white(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "argb"
        for picture in pictures(3, background="#00000000"):
            values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(H, W, 4)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(values.numpy(), format="rgba")))
        container.mux(stream.encode(None))
    assert torch.all(only_clip(tmp_path).read([0, 2])[..., 20:30, :] == 1)


@pytest.mark.parametrize("inside", ["jump/walk", "walk"])
def test_pictures_in_a_folder_are_a_clip(tmp_path: Path, inside: str) -> None:
    write_folder(tmp_path / inside)
    found = only_clip(tmp_path / inside.split("/")[0])
    assert (found.path.name, found.num_frames, found.fps) == ("walk", 12, pytest.approx(24))
    assert frames_shown(found.read([2, 11])) == [2, 11]  # frame11 comes after frame9


def test_still_webps_are_frames(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    for i, picture in enumerate(pictures(3)):
        picture.save(tmp_path / "walk" / f"{i}.webp")
    assert only_clip(tmp_path / "walk").num_frames == 3


@pytest.mark.parametrize(("degrees", "corner"), [(90, (1, 0)), (180, (1, 1)), (270, (0, 1))])
def test_rotated_videos_stand_upright(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    """`corner`: row and column at which the red corner of the stored pictures is shown."""
    write_video(tmp_path / "a.mp4", prepare=lambda stream: stream.set_display_rotation(degrees))
    found = only_clip(tmp_path)
    assert found.rotation == degrees
    assert found.size == ((H, W) if degrees % 180 else (W, H))
    video_FCHW = found.read([0, 9])
    assert video_FCHW.shape[-2:] == found.size[::-1]
    redness_HW = (
        (video_FCHW[0, 0] - video_FCHW[0, 1]).unflatten(0, (2, -1)).unflatten(2, (2, -1)).mean((1, 3))
    )
    assert divmod(int(redness_HW.argmax()), 2) == corner


def test_pixels_become_square(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    write_video(tmp_path / "a.mp4", prepare=wide)
    found = only_clip(tmp_path)
    assert found.size == (128, H)
    video_FCHW = found.read([0, 5])
    assert video_FCHW.shape == (2, 3, H, 128)
    assert frames_shown(video_FCHW) == [0, 5]


def test_trimmed_video_gives_what_is_shown(tmp_path: Path) -> None:
    """A phone cuts a video's start by a note in the file that hides frames; they are still stored."""
    write_video(tmp_path / "whole.mp4")
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "trim.mp4"), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                shift = int(8 / (25 * packet.time_base))
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    (tmp_path / "whole.mp4").unlink()
    found = only_clip(tmp_path)
    assert frames_shown(found.read(range(found.num_frames))) == list(range(8, 20))


def test_seek_that_goes_too_far_is_mended(tmp_path: Path) -> None:
    class Far:
        """A container that jumps over the wanted frame, wherever it is but at the start."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def seek(self, offset: int, stream: Any) -> None:
            self.container.seek(offset + int((0.4 if offset else 0) / stream.time_base), stream=stream)

    write_video(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [time for time, _ in clip_files._decoded(Far(container), 0.0, 0.2)]
    assert times == pytest.approx([i / 25 for i in range(20)])


def test_large_pictures_are_made_smaller_and_small_ones_left(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    found = only_clip(tmp_path)
    assert found.read([0, 1], short_side=32).shape == (2, 3, 32, 48)
    assert found.read([0, 1], short_side=100).shape == (2, 3, H, W)


def test_colours_and_range_are_right(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    video_FCHW = only_clip(tmp_path).read(range(2))
    assert (video_FCHW.dtype, float(video_FCHW.min()) >= 0, float(video_FCHW.max()) <= 1) == (
        torch.float32,
        True,
        True,
    )
    red = video_FCHW[:, :, 2:12, 2:12].mean((0, 2, 3))
    assert torch.allclose(red, torch.tensor([1.0, 0.0, 0.0]), atol=0.06)


def test_long_video_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the wanted pictures are made, and decoding begins and ends close to them."""
    write_video(tmp_path / "a.mp4", 600)
    found = only_clip(tmp_path)
    made, decoded = [], []
    picture, decode = clip_files._picture, clip_files._decoded

    def counted(*arguments: Any) -> Iterator[Any]:
        for pair in decode(*arguments):
            decoded.append(pair[0])
            yield pair

    monkeypatch.setattr(clip_files, "_picture", lambda frame: made.append(1) or picture(frame))
    monkeypatch.setattr(clip_files, "_decoded", counted)
    assert len(found.read(range(400, 464, 4))) == 16
    assert len(made) == 16
    assert len(decoded) < 64 + 12


# What is refused


def test_bad_files_are_skipped_with_their_reason(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.webm").write_text("no video " * 100)
    (tmp_path / "text.gif").write_text("no video " * 100)
    write_sound(tmp_path / "sound.mp4")
    write_video(tmp_path / "one.mp4", 1)
    Image.new("RGB", (W, H)).save(tmp_path / "still.gif")
    cut(write_video(tmp_path / "no_index.mp4"), 0.6)
    cut(write_video(tmp_path / "half.mp4", 60, movflags="faststart"), 0.7)
    cut(write_video(tmp_path / "half.mkv", 60), 0.7)
    cut(write_video(tmp_path / "half.webm", 60), 0.7)
    cut(write_video(tmp_path / "half.avi", 60), 0.7)
    cut(write_animation(tmp_path / "half.gif", 9), 0.6)
    cut(write_animation(tmp_path / "half.webp", 9), 0.6)
    write_folder(tmp_path / "sizes", 3)
    Image.new("RGB", (W, H + 1)).save(tmp_path / "sizes" / "frame1.png")
    write_folder(tmp_path / "torn", 3)
    cut(tmp_path / "torn" / "frame1.png", 0.5)
    write_video(tmp_path / "run" / "a.mp4", 2)
    found = find_clips([tmp_path])
    assert [one.path.name for one in found.used] == ["good.mp4"]
    reasons = {one.path.name: one.reason for one in found.skipped}
    for name, reason in {
        "empty.mp4": "the file is empty (0 bytes)",
        "text.webm": "it cannot be read as a video (Invalid data found when processing input)",
        "text.gif": "it cannot be read (cannot identify image file",
        "sound.mp4": "it has no video, only sound",
        "one.mp4": "a clip needs 2 frames or more, but this has 1",
        "still.gif": "a clip needs 2 frames or more, but this has 1",
        "no_index.mp4": "it cannot be read as a video",
        "half.mp4": "the file is cut off: ",
        "half.mkv": "the file is cut off: ",
        "half.webm": "the file is cut off: ",
        "half.avi": "the file is cut off: ",
        "half.gif": "it cannot be read (",
        "half.webp": "it cannot be read (",
        "sizes": "its pictures differ in size (96x64 and 96x65)",
        "torn": "it cannot be read (",
        "run": "it is a folder of clips: give it as an action of its own",
    }.items():
        assert reasons.pop(name).startswith(reason), name
    assert not reasons


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_damage_inside_a_clip_is_found_and_named(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", 60)
    write_video(tmp_path / "b.mp4")
    found = find_clips([tmp_path]).used[0]
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = b"\x55" * 20
    path.write_bytes(data)
    reason = r"it (is damaged|cannot be read)"  # as it hits the decoder
    with pytest.raises(ValueError, match=rf"a\{suffix}: {reason}.*\. Mend the clip, or take it away"):
        found.read(range(60))
    again = find_clips([tmp_path])
    assert [one.path.name for one in again.used] == ["b.mp4"]
    assert re.match(reason, again.skipped[0].reason)


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the decoder drop frames without a word, as it does with some damage."""

    def lose(*lost: int) -> None:
        decode = clip_files._decoded

        def kept(*arguments: Any) -> Iterator[Any]:
            return (pair for i, pair in enumerate(decode(*arguments)) if i not in lost)

        monkeypatch.setattr(clip_files, "_decoded", kept)

    return lose


def test_clips_that_lost_many_frames_or_their_end_are_skipped(tmp_path: Path, lose) -> None:
    write_video(tmp_path / "a.mp4", 20)
    lose(8, 9, 10)
    with pytest.raises(ValueError, match=r"a\.mp4: it is damaged: 17 of its 20 frames can be read"):
        find_clips([tmp_path])
    lose(16)  # of the 17, the last one
    with pytest.raises(ValueError, match=r"it is damaged: 16 of its 20 frames can be read"):
        find_clips([tmp_path])


def test_the_next_frame_stands_in_for_one_that_is_lost(tmp_path: Path, lose) -> None:
    write_video(tmp_path / "a.mp4", 20)
    lose(9)
    assert frames_shown(only_clip(tmp_path).read(range(20))) == [*range(9), 10, *range(10, 20)]


def test_file_that_changed_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 20)
    found = only_clip(tmp_path)
    write_video(tmp_path / "a.mp4", 10)
    with pytest.raises(ValueError, match=r"a\.mp4: frame 15 of 20 cannot be read"):
        found.read([3, 15])
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(ValueError, match=r"a\.mp4: it cannot be read as a video \(No such file"):
        found.read([3])


def test_footage_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it cannot be read"):
        examine(tmp_path / "missing.mp4")

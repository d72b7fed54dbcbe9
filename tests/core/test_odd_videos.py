"""Videos of odd kinds give what a plain decode from the start gives, and what is lost or changed is said."""

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from flash_pack.flash_modules.files import clip_files
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.odd_clips import (
    H,
    W,
    bar_clip,
    bars,
    bars_shown,
    encode,
    only_clip,
    plain_decode,
    refusals,
)

# The reference


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.ts"])
@pytest.mark.parametrize("num_frames", [8, 40])
def test_transport_streams_give_every_frame_under_any_name(
    tmp_path: Path, name: str, num_frames: int
) -> None:
    bar_clip(tmp_path / name, num_frames, form="mpegts")
    found = only_clip(tmp_path)
    assert found.num_frames == num_frames
    assert torch.equal(found.read(range(num_frames)), plain_decode(tmp_path / name))
    for i in range(0, num_frames, 3):
        assert bars_shown(found.read([i])) == [i]


@pytest.mark.parametrize(
    ("form", "codec"),
    [
        *(("mpegts", codec) for codec in ("h264", "mpeg2video")),
        *(("mp4", codec) for codec in ("h264", "hevc", "mpeg4", "av1")),
        *(("mpeg", "mpeg2video"), ("flv", "flv"), ("asf", "wmv2"), ("avi", "h264"), ("matroska", "h264")),
    ],
)
def test_single_frames_are_those_of_a_plain_decode(tmp_path: Path, form: str, codec: str) -> None:
    options = {"preset": "8"} if codec == "av1" else {} if codec in ("flv", "wmv2") else {"bf": "2"}
    path = bar_clip(tmp_path / "a.mp4", form=form, codec=codec, **options)
    reference, found = plain_decode(path), only_clip(tmp_path)
    assert found.num_frames == len(reference) == 40
    assert torch.equal(found.read(range(40)), reference)
    for i in (1, 7, 8, 17, 26, 39):
        assert torch.equal(found.read([i])[0], reference[i])


def remux(source: Path, target: Path, keep: Callable[[int, Any], bool], **options: str) -> Path:
    """Copy the packets that are to be kept."""
    with av.open(str(source)) as before, av.open(str(target), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for index, packet in enumerate(before.demux(video=0)):
            if packet.size and keep(index, packet):
                packet.stream = stream
                after.mux(packet)
    return target


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_recording_that_begins_in_the_middle_begins_at_its_first_whole_frame(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "clip").mkdir()
    whole = bar_clip(tmp_path / f"whole{suffix}", codec="mpeg2video", bf="0")
    remux(whole, tmp_path / "clip" / f"a{suffix}", lambda index, packet: index >= 3)
    found = only_clip(tmp_path / "clip")
    shown = bars_shown(found.read(range(found.num_frames)))
    assert shown == list(range(shown[0], 40))
    assert shown[0] in (3, 6)


@pytest.mark.parametrize("lost", [(9,), (30, 31)])
def test_lost_frames_are_said_from_the_first_one_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: tuple[int, ...]
) -> None:
    bar_clip(tmp_path / "a.mp4")
    decode = clip_files._decoded

    def kept(*arguments: Any) -> Any:
        return (pair for i, pair in enumerate(decode(*arguments)) if i not in lost)

    monkeypatch.setattr(clip_files, "_decoded", kept)
    note = f"{len(lost)} of its 40 frames are lost, the first {lost[0] / 25:.1f} s after its start"
    assert only_clip(tmp_path).notes == (f"{note}: the next one stands in",)


def test_pictures_that_are_never_shown_are_no_frames(tmp_path: Path) -> None:
    """VP8 stores some only for others to refer to."""
    whole = bar_clip(tmp_path / ".whole.webm", codec="libvpx")
    with av.open(str(whole)) as before, av.open(str(tmp_path / "a.webm"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.is_keyframe and packet.pts:
                data = bytes(packet)
                hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
                hidden.pts = hidden.dts = packet.pts - 10
                hidden.time_base, hidden.stream = packet.time_base, stream
                after.mux(hidden)
            packet.stream = stream
            after.mux(packet)
    with av.open(str(tmp_path / "a.webm")) as container:
        assert sum(1 for packet in container.demux(video=0) if packet.size) > 40
    found = only_clip(tmp_path)
    assert (found.num_frames, found.notes) == (40, ())
    assert bars_shown(found.read(range(40))) == list(range(40))


def test_frames_of_one_time_are_all_there(tmp_path: Path) -> None:
    """MPEG-PS may give one time to two frames."""
    path = bar_clip(tmp_path / "a.mpg", codec="mpeg2video")
    reference = plain_decode(path)
    whole = clip_files.frame_time
    clip_files.frame_time = lambda frame: 0.68 if abs(whole(frame) - 0.72) < 0.03 else whole(frame)
    try:
        with clip_files.open_video(path) as container:
            stream = clip_files.video_stream(container)
            times = [time for time, _ in clip_files._timed(container, stream)]
    finally:
        clip_files.frame_time = whole
    assert len(times) == len(reference) == 40
    assert all(after > before for before, after in pairwise(times))


def test_a_clock_that_jumps_back_is_refused(tmp_path: Path) -> None:
    one, two = bar_clip(tmp_path / "x" / "1.ts", 20), bar_clip(tmp_path / "x" / "2.ts", 20)
    (tmp_path / "a.ts").write_bytes(one.read_bytes() + two.read_bytes())
    (tmp_path / "x").rename(tmp_path / ".x")
    assert refusals(tmp_path)["a.ts"].startswith("its clock jumps back 0.8 s after its start: convert it")


@pytest.mark.parametrize("name", ["a.flv", "a.wmv"])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, name: str) -> None:
    path = bar_clip(tmp_path / name, codec="flv" if name == "a.flv" else "wmv2")
    assert only_clip(tmp_path).num_frames == 40
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    assert refusals(tmp_path)[name].startswith(("the file is cut off: ", "it is damaged"))


# How it is shown

TURNS = [(degrees, flip) for degrees in (0, 90, 180, 270) for flip in (None, "hflip", "vflip")]


@pytest.mark.parametrize(("degrees", "flip"), TURNS)
def test_the_whole_display_matrix_counts(tmp_path: Path, degrees: int, flip: str | None) -> None:
    picture = Image.new("RGB", (W, H), "black")
    for place, colour in {(0, 0): "red", (W - 32, 0): "lime", (0, H - 32): "blue"}.items():
        picture.paste(colour, (*place, place[0] + 32, place[1] + 32))
    flips = {flip: True} if flip else {}
    encode(
        tmp_path / "a.mp4",
        [picture] * 3,
        prepare=lambda stream: stream.set_display_rotation(degrees, **flips),
    )
    wanted = picture.rotate(degrees, expand=True)
    if flip:
        wanted = ImageOps.mirror(wanted) if flip == "hflip" else ImageOps.flip(wanted)
    found = only_clip(tmp_path)
    assert found.size == wanted.size
    shown = found.read([0, 2])[1].movedim(0, -1)
    assert float((shown - torch.from_numpy(np.asarray(wanted) / 255)).abs().mean()) < 0.05


def test_oblique_turns_are_said(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", list(bars(3)), prepare=lambda stream: stream.set_display_rotation(30))
    assert only_clip(tmp_path).notes == ("it is to be turned by 30 degrees: it is turned by 0",)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("flagged", [True, False])
def test_transparent_webm_becomes_white(tmp_path: Path, codec: str, flagged: bool) -> None:
    frames = []
    for picture in bars(12):
        clear = np.asarray(picture.convert("RGBA")).copy()
        clear[:, 48:, 3] = 0
        frames.append(av.VideoFrame.from_ndarray(clear, format="rgba").reformat(format="yuva420p"))

    def prepare(stream: Any) -> None:
        if flagged:
            stream.metadata["alpha_mode"] = "1"

    encode(
        tmp_path / "a.webm",
        frames,
        codec,
        pixels="yuva420p" if flagged else "yuv420p",
        prepare=prepare,
        **{"auto-alt-ref": "0"},
    )
    found = only_clip(tmp_path)
    read_FCHW = found.read(range(12))
    assert float((read_FCHW[..., 56:] - int(flagged)).abs().max()) < 0.1
    assert float(read_FCHW[0, :, 32, 10].mean()) > 0.7
    for i in (0, 5, 11):
        assert torch.equal(found.read([i])[0], read_FCHW[i])


# What changes inside


def webm_of_two_sizes(path: Path) -> Path:
    """As a call records it, when the phone is turned."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for part, size in enumerate(((W, H), (H, W))):
            encoder = stream if part == 0 else av.CodecContext.create("libvpx", "w")
            if part:
                encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
                encoder.time_base = stream.codec_context.time_base
            packets = [
                packet
                for picture in bars(10, *size)
                for packet in encoder.encode(av.VideoFrame.from_image(picture))
            ]
            for i, packet in enumerate([*packets, *encoder.encode(None)]):
                packet.stream = stream
                packet.pts = packet.dts = 10 * part + i
                packet.time_base = stream.codec_context.time_base
                container.mux(packet)
    return path


def test_clip_ends_where_its_size_changes(tmp_path: Path) -> None:
    webm_of_two_sizes(tmp_path / "call.webm")
    found = only_clip(tmp_path)
    assert found.notes == (
        "its size changes from 96x64 to 64x96 0.4 s after its start: it is taken up to there",
    )
    assert (found.num_frames, found.duration) == (10, pytest.approx(0.4))
    assert bars_shown(found.read(range(10))) == list(range(10))


def woven(num_frames: int) -> list[Image.Image]:
    """A bar that moves by two pixels between the two moments of a frame."""
    moments = [np.asarray(picture) for picture in bars(2 * num_frames)]
    frames = []
    for even, odd in zip(moments[::2], moments[1::2], strict=True):
        frame = even.copy()
        frame[1::2] = odd[1::2]
        frames.append(Image.fromarray(frame))
    return frames


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mpg", "mpeg2video", {"flags": "+ildct+ilme", "b": "4000000", "bf": "2"}),
        (".mp4", "h264", {"x264-params": "interlaced=1:tff=1", "crf": "5"}),
        (".avi", "mpeg2video", {"flags": "+ildct+ilme", "b": "4000000"}),
    ],
)
def test_interlaced_clips_are_deinterlaced(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str]
) -> None:
    frames = [av.VideoFrame.from_image(picture) for picture in woven(20)]
    encode(tmp_path / f"a{suffix}", frames, codec, **options)
    found = only_clip(tmp_path)
    assert found.notes == ("it is interlaced: its frames are deinterlaced",)
    read_FCHW = found.read(range(20))
    assert len(read_FCHW) == found.num_frames == 20
    combs = (read_FCHW[:, :, 20:40:2] - read_FCHW[:, :, 21:41:2]).abs().mean()
    stored = plain_decode(tmp_path / f"a{suffix}")
    assert float(combs) < 0.3 * float((stored[:, :, 20:40:2] - stored[:, :, 21:41:2]).abs().mean())
    assert [shown // 2 for shown in bars_shown(read_FCHW)] == list(range(20))
    for i in (0, 7, 19):
        assert torch.equal(found.read([i])[0], read_FCHW[i])


def test_one_bad_file_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    for i, suffix in enumerate((".mp4", ".mkv", ".ts", ".avi", ".flv")):
        path = bar_clip(tmp_path / f"{i}{suffix}", codec="mpeg4" if suffix == ".avi" else "h264")
        data = bytearray(path.read_bytes())
        data[: len(data) // 3] = struct.pack(">I", 0xFFFFFFFF) * (len(data) // 12)
        path.write_bytes(data)
    reasons = refusals(tmp_path)
    found = find_clips([tmp_path])
    assert len(reasons) + len(found.used) == 6

"""Opening pictures and videos: no program is run, nothing else is read, nothing waits, memory is bounded."""

import os
import struct
import threading
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from PIL import EpsImagePlugin, Image

from flash_pack.flash_modules.files.clip_files import examine
from flash_pack.flash_modules.files.containers import CONTAINERS, open_video
from flash_pack.flash_modules.files.video_files import read_picture
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.odd_clips import H, W, bar_clip, bars, bars_shown, only_clip, refusals

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in Ghostscript's place; the file is there once it was started."""
    started, folder = tmp_path / "started", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!/bin/sh\ntouch '{started}'\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return started


@pytest.mark.skipif(os.name == "nt", reason="the program in Ghostscript's place is a shell script")
@pytest.mark.parametrize("suffix", [".png", ".gif", ".jpg", ".webp", ".tif"])
def test_no_picture_starts_a_program(tmp_path: Path, ghostscript: Path, suffix: str) -> None:
    picture = tmp_path / "clips" / f"a{suffix}"
    for path in (picture, tmp_path / "clips" / "frames" / f"a{suffix}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(EPS)
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read_picture(picture)
    refusals(tmp_path / "clips")
    assert not ghostscript.exists()


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
    ],
)
def test_lists_of_other_files_are_refused(tmp_path: Path, text: str) -> None:
    bar_clip(tmp_path / "elsewhere" / "other.mp4")
    for name in ("a.mp4", "a.mkv", "a.ts"):
        (tmp_path / "elsewhere" / name).write_text(text)
        with pytest.raises(ValueError, match="it is a list of other files, and no video"):
            examine(tmp_path / "elsewhere" / name)


@pytest.mark.skipif(os.name == "nt", reason="names there hold no colon")
def test_names_are_never_taken_for_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bar_clip(Path("a.mp4"))
    for name in ("concat:a.mp4", "subfile,,start,0,end,0,,:a.mp4", "file:a.mp4"):
        Path(name).write_text("no video " * 100)
        with pytest.raises(ValueError, match="it cannot be read as a video"):
            examine(Path(name))


def test_containers_that_are_not_meant_are_refused(tmp_path: Path) -> None:
    """FFmpeg reads them: the list reaches its demuxer."""
    bar_clip(tmp_path / "a.mp4", form="nut")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.format.name not in CONTAINERS
    with pytest.raises(
        ValueError, match=r"it is of no kind that is read \(mp4, mov, .*\): convert it to mp4"
    ):
        examine(tmp_path / "a.mp4")


def test_open_files_are_closed_again(tmp_path: Path) -> None:
    with open_video(bar_clip(tmp_path / "a.mp4")) as container:
        assert container.name == str(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_pipes_are_named_and_never_waited_for(tmp_path: Path) -> None:
    reasons: dict[str, str] = {}

    def look() -> None:
        reasons.update(refusals(tmp_path))
        found = find_clips([tmp_path])
        reasons.update({one.path.name: one.reason for one in found.others})
        with pytest.raises(ValueError, match="it is no file, but a pipe"):
            read_picture(tmp_path / "cover.png")

    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(bars(3)):
        picture.save(tmp_path / "frames" / f"{i}.png")
    for name in ("a.mp4", "b.gif", "c.webp", "cover.png", "zz-good.txt", "frames/3.png"):
        os.mkfifo(tmp_path / name)
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    for name in ("a.mp4", "b.gif", "c.webp"):
        assert reasons[name] == "it is no file, but a pipe, a socket or a device"
    assert reasons["frames"] == "3.png: it is no file, but a pipe, a socket or a device"
    assert reasons["cover.png"] == "it is no file, but a pipe, a socket, a device, or a link to nothing"
    assert reasons["zz-good.txt"] == "it is no file, and no caption"


def test_names_do_not_hide_what_a_file_is(tmp_path: Path) -> None:
    for name, form in {"a.gif": "mp4", "b.webp": "matroska", "c.apng": "avi"}.items():
        bar_clip(tmp_path / name[0] / name, form=form, codec="mpeg4")
        assert bars_shown(only_clip(tmp_path / name[0]).read(range(40))) == list(range(40))
    first, *rest = bars(9)
    for name, form in {"d.mp4": "GIF", "e.mov": "WEBP", "f.avi": "PNG"}.items():
        (tmp_path / name[0]).mkdir()
        first.save(tmp_path / name[0] / name, form, save_all=True, append_images=rest, duration=80)
        found = only_clip(tmp_path / name[0])
        assert (bars_shown(found.read(range(9))), found.fps) == (list(range(9)), pytest.approx(12.5))


def cover_song(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        frame = av.AudioFrame.from_ndarray(torch.zeros(1, 44100).numpy(), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def test_what_is_no_video_is_called_what_it_is(tmp_path: Path) -> None:
    cover_song(tmp_path / "song.mp4")
    bar_clip(tmp_path / "raw.mp4", form="h264")
    bar_clip(tmp_path / "raw.mpg", form="mpeg2video", codec="mpeg2video")
    (tmp_path / "odd.mp4").write_bytes(b"fLaC" + bytes(2000))
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.mp4", "JPEG")
    reasons = refusals(tmp_path)
    assert reasons["song.mp4"] == "it is music with a picture, and no video"
    for name in ("raw.mp4", "raw.mpg"):
        assert reasons[name].startswith(
            "it is a raw stream of pictures, which does not say when they are shown"
        )
    assert reasons["odd.mp4"] == "it has no video, only sound"
    assert reasons["photo.mp4"].startswith("it is of no kind that is read")


# Memory and time


def patched(data: bytes, box: bytes, offset: int, value: int) -> bytes:
    place = data.index(box) + 4 + offset
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def claims_many(data: bytes) -> bytes:
    """An MP4 whose frames are all of one byte, and 50 million."""
    for box, offset, value in ((b"stsz", 4, 1), (b"stsz", 8, 5 * 10**7), (b"stsc", 12, 5 * 10**7)):
        data = patched(data, box, offset, value)
    return patched(data, b"stts", 8, 5 * 10**7)


def png_of(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    checked = header + struct.pack(">I", zlib.crc32(header))
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + checked + struct.pack(">I", 100) + b"IDAT" + bytes(104)
    )


@pytest.mark.parametrize("make", [claims_many, lambda data: patched(data, b"trun", 4, 5 * 10**7)])
def test_frames_that_cannot_be_there_take_no_memory(tmp_path: Path, make: Callable[[bytes], bytes]) -> None:
    fragmented = {} if make is claims_many else {"movflags": "frag_keyframe+empty_moov"}
    with av.open(str(tmp_path / "a.mp4"), "w", options=fragmented) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for picture in bars(8):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    assert len(examine(tmp_path / "a.mp4").times) == 8
    (tmp_path / "a.mp4").write_bytes(make((tmp_path / "a.mp4").read_bytes()))
    with pytest.raises(ValueError, match="it is damaged: it claims more frames than it can hold"):
        examine(tmp_path / "a.mp4")


def test_sound_of_minutes_is_no_claim(tmp_path: Path) -> None:
    """Each value of PCM is a sample: five million in 100 seconds."""
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=48000)
        for picture in bars(8):
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
        silence = torch.zeros(1, 48000, dtype=torch.int16).numpy()
        for i in range(100):
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
            frame.rate, frame.pts = 48000, 48000 * i
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert len(examine(tmp_path / "a.mov").times) == 8


def test_bombs_of_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flash_pack.flash_modules.files.containers.MAX_PIXELS", 2 * W * H - 1)
    bar_clip(tmp_path / "wide.mkv", 3, size=(2 * W, H))
    (tmp_path / "a.webp").write_bytes(png_of(60000, 60000))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(png_of(60000, 60000))
    reasons = refusals(tmp_path)
    assert reasons["wide.mkv"] == "its frames have 192x64 pixels: 8192x4320 are the most"
    assert "exceeds limit" in reasons["a.webp"]
    assert reasons["frames"].startswith("it cannot be read (0.png: Image size (3600000000 pixels) exceeds")


def test_small_files_that_would_take_minutes_are_refused(tmp_path: Path) -> None:
    """One picture of 4K, and then nothing but frames that repeat it."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
        stream = container.add_stream("libvpx-vp9", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 3840, 2160, "yuv420p"
        packets = []
        for i in range(3):
            frame = av.VideoFrame(3840, 2160, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = i
            packets += stream.encode(frame)
        for i in range(1000):
            packet = av.Packet(bytes(packets[min(i, 2)]))
            packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), i, i
            container.mux(packet)
    with pytest.raises(ValueError, match=r"it has 1000 frames of 3840x2160 in \d+ bytes, which is"):
        examine(path)


def test_long_animations_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flash_pack.flash_modules.files.pictures._MOST_PIXELS", 96 * 64 * 5)
    first, *rest = bars(9)
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    with pytest.raises(ValueError, match="it has over 5 frames of 96x64: cut it shorter"):
        examine(tmp_path / "a.gif")

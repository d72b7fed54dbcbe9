"""Pictures of every depth in their grey, folders and animations with what is theirs."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flash_pack.flash_modules.files.video_files import read_picture
from flash_pack.flash_modules.training.clips import find_clips
from flash_pack.tests.core.odd_clips import bars, bars_shown, only_clip, refusals

DARK, LIGHT = 12000 / 65535, 40000 / 65535


def deep(kind: type, white: float) -> np.ndarray:
    values_HW = np.full((16, 24), DARK * white)
    values_HW[:, 12:] = LIGHT * white
    return values_HW.astype(kind)


@pytest.mark.parametrize(
    ("name", "values_HW", "options"),
    [
        ("16.png", deep(np.uint16, 65535), {}),
        ("16.tif", deep(np.uint16, 65535), {}),
        ("negative.tif", deep(np.uint16, 65535), {"tiffinfo": {262: 0}}),
        ("32.tif", deep(np.int32, 65535), {}),
        ("whole32.tif", deep(np.int32, 2**31 - 1), {}),
        ("unsigned32.tif", deep(np.int64, 2**32 - 1).astype(np.uint32).view(np.int32), {}),
        ("float.tif", deep(np.float32, 1), {}),
        ("bytes.tif", deep(np.float32, 255), {}),
        ("words.tif", deep(np.float32, 65535), {}),
    ],
)
def test_deep_pictures_keep_their_grey(
    tmp_path: Path, name: str, values_HW: np.ndarray, options: dict[str, Any]
) -> None:
    for i in range(2):
        (tmp_path / "clip").mkdir(exist_ok=True)
        path = tmp_path / "clip" / f"{i}{name}"
        Image.fromarray(values_HW).save(path, **options)
        if name == "unsigned32.tif":
            signed, unsigned = (struct.pack("<HHIHH", 339, 3, 1, kind, 0) for kind in (2, 1))
            assert signed in path.read_bytes()
            path.write_bytes(path.read_bytes().replace(signed, unsigned))
    grey = [1 - DARK, 1 - LIGHT] if "negative" in name else [DARK, LIGHT]
    read_FCHW = only_clip(tmp_path / "clip").read([0, 1])
    assert read_FCHW.shape == (2, 3, 16, 24)
    for side, wanted in zip((6, 18), grey, strict=True):
        assert torch.allclose(read_FCHW[:, :, 8, side], torch.tensor(wanted), atol=1 / 255)
    picture = read_picture(tmp_path / "clip" / f"0{name}")
    assert (picture.mode, picture.getpixel((6, 8))) == ("RGB", (round(grey[0] * 255),) * 3)


def test_deep_pictures_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(deep(np.uint16, 65535)).save(tmp_path / "a.png", exif=exif)
    picture = read_picture(tmp_path / "a.png")
    assert picture.size == (16, 24)
    assert picture.getpixel((8, 6)) == (47, 47, 47)


@pytest.mark.parametrize("value", [1e9, float("nan")])
def test_floats_without_a_range_are_refused(tmp_path: Path, value: float) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(2):
        Image.fromarray(np.full((8, 8), value, np.float32)).save(tmp_path / "frames" / f"{i}.tif")
    assert "save it with 8 or 16 bits" in refusals(tmp_path)["frames"]


def test_the_picture_that_is_torn_is_named(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(bars(3)):
        picture.save(tmp_path / "frames" / f"{i}.png")
    data = (tmp_path / "frames" / "1.png").read_bytes()
    (tmp_path / "frames" / "1.png").write_bytes(data[: len(data) // 2])
    assert refusals(tmp_path)["frames"].startswith("it cannot be read (1.png: ")


@pytest.mark.parametrize("suffix", [".apng", ".png", ".avif"])
def test_moving_pictures_of_any_kind_are_clips(tmp_path: Path, suffix: str) -> None:
    first, *rest = bars(9)
    form = "AVIF" if suffix == ".avif" else "PNG"
    first.save(tmp_path / f"a{suffix}", form, save_all=True, append_images=rest, duration=80)
    found = only_clip(tmp_path)
    assert bars_shown(found.read(range(9))) == list(range(9))
    assert found.duration == pytest.approx(0.72)


def test_picture_before_an_animation_is_no_frame(tmp_path: Path) -> None:
    """An APNG may begin with one for programs that show no animations."""
    cover = Image.new("RGB", (96, 64), "red")
    cover.save(
        tmp_path / "a.apng",
        "PNG",
        save_all=True,
        append_images=list(bars(5)),
        duration=80,
        default_image=True,
    )
    found = only_clip(tmp_path)
    assert bars_shown(found.read(range(5))) == list(range(5))


def test_damaged_animations_are_named_and_the_others_used(tmp_path: Path) -> None:
    first, *rest = bars(9)
    for name in ("a.gif", "b.webp", "c.apng"):
        form = "PNG" if name == "c.apng" else None
        first.save(tmp_path / name, form, save_all=True, append_images=rest, duration=80)
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(range(40))
        (tmp_path / name).write_bytes(data)
    chunk = b"fcTL" + struct.pack(">IIIIIHHBB", 0, 96, 64, 2**31, 0, 1, 10, 0, 0)
    broken = struct.pack(">I", 26) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "d.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 96, 64, 8, 2, 0, 0, 0) + bytes(4) + broken
    )
    reasons = refusals(tmp_path)
    for name in ("a.gif", "b.webp", "c.apng"):
        assert reasons[name].startswith("it cannot be read ("), name
    assert [one.path.name for one in find_clips([tmp_path]).others] == ["d.png"]

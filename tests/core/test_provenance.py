import hashlib
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from flash_pack.flash_modules.files.clip_files import check_frames, examine
from flash_pack.flash_modules.files.provenance import GENERATED, Origin, Part, origin_of
from flash_pack.flash_modules.files.video_files import write_video
from flash_pack.tests.core.made_videos import scene

HOSTILE = Origin(parts=(Part(kind="action", name='<jump> & "run" \'s.safetensors', sha256="ab" * 32),))
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"


def told(xmp: bytes) -> tuple[str | None, str | None]:
    """DigitalSourceType and description of an XMP packet, read by the standard library."""
    root = ET.fromstring(xmp.decode().partition("?>")[2].rpartition("<?xpacket")[0])
    description = next(root.iter(f"{_RDF}Description"))
    return description.get(_IPTC), next(root.iter(f"{_RDF}li")).text


def test_the_origin_names_files_without_folders_and_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "jump.safetensors"
    path.write_bytes(b"action")
    origin = origin_of([("action", path), ("motion", None), ("picture", tmp_path)])
    digest = hashlib.sha256(b"action").hexdigest()
    assert origin.sentence == (
        f"Generated with AI by ComfyUI-FLASH from action jump.safetensors (SHA-256 {digest}), "
        f"picture {tmp_path.name}"
    )
    assert str(tmp_path) not in origin.comment
    assert Origin().sentence == "Generated with AI by ComfyUI-FLASH"


def test_mp4_tells_ffprobe_that_it_is_generated_and_plays(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, iter(scene()), 8, HOSTILE)
    assert len(check_frames(path, examine(path)).times) == 8
    data = path.read_bytes()
    start = data.index(b"uuid\xbe\x7a\xcf\xcb") + 4 + 16
    assert told(data[start:]) == (GENERATED, HOSTILE.sentence)
    if shutil.which("ffprobe") is None:
        pytest.skip("THE COMMENT WAS NOT READ BACK: no ffprobe")
    command = ["ffprobe", "-v", "error", "-show_format", "-of", "json", str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert found["format"]["tags"]["comment"] == HOSTILE.comment
    assert found["format"]["duration"] == "1.000000"


def test_webp_gif_and_png_tell_pillow_that_they_are_generated(tmp_path: Path) -> None:
    for name in ("a.webp", "a.gif", "a"):
        write_video(tmp_path / name, iter(scene()), 8, HOSTILE)
    with Image.open(tmp_path / "a.webp") as webp:
        assert webp.n_frames == 8  # type: ignore[attr-defined]
        assert told(webp.info["xmp"]) == (GENERATED, HOSTILE.sentence)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.info["comment"].decode() == HOSTILE.comment
    with Image.open(tmp_path / "a" / "00003.png") as png:
        assert told(png.info["xmp"]) == (GENERATED, HOSTILE.sentence)


def test_without_an_origin_nothing_is_told(tmp_path: Path) -> None:
    for name in ("a.webp", "a.gif", "a.mp4"):
        write_video(tmp_path / name, iter(scene()), 8)
        data = (tmp_path / name).read_bytes()
        assert b"FLASH" not in data
        assert b"digitalsourcetype" not in data

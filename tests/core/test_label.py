"""What the header of a model file tells people, and what strangers may write into it."""

import base64
from dataclasses import replace
from io import BytesIO
from random import Random

import pytest
from PIL import Image, ImageDraw

from flash_pack.flash_modules.files.label import THUMBNAIL, Label, label_lines, read_label, with_label


def header(**told: str) -> dict[str, str]:
    return {f"modelspec.{name}": text for name, text in told.items()}


def picture(width: int = 300, height: int = 200) -> Image.Image:
    """Blue, with a red square in the middle."""
    made = Image.new("RGB", (width, height), (0, 0, 255))
    side = min(width, height) // 2
    left, top = (width - side) // 2, (height - side) // 2
    ImageDraw.Draw(made).rectangle((left, top, left + side, top + side), fill=(255, 0, 0))
    return made


def data_of(made: Image.Image, kind: str = "png") -> str:
    written = BytesIO()
    made.save(written, kind)
    return f"data:image/{kind};base64,{base64.b64encode(written.getvalue()).decode()}"


def test_a_label_comes_back_as_it_was_written() -> None:
    label = Label(title="Wave!", author="Ann", licence="CC-BY-4.0", description="Waves.", thumbnail=picture())
    found = read_label(with_label({}, label), "wave")
    assert replace(found, thumbnail=None) == replace(label, thumbnail=None)
    assert found.thumbnail is not None
    assert found.thumbnail.size == (THUMBNAIL, THUMBNAIL)
    corner, middle = (found.thumbnail.getpixel(place) for place in ((5, 5), (128, 128)))
    assert corner[2] > 240 > 10 > corner[0]
    assert middle[0] > 240 > 10 > middle[2]


def test_the_header_has_the_names_of_the_standard() -> None:
    label = Label(title="T", author="A", licence="L", description="D", thumbnail=picture())
    told = with_label({}, label)
    assert told["modelspec.license"] == "L"
    assert told["modelspec.thumbnail"].startswith("data:image/jpeg;base64,/9j/")
    assert len(told["modelspec.thumbnail"]) < 40_000


def test_what_a_label_does_not_say_stays() -> None:
    before = header(title="Wave!", author="Ann", thumbnail=data_of(picture()))
    after = with_label(before, Label(author="  ", licence="MIT"))
    assert after == {**before, "modelspec.license": "MIT"}
    assert with_label(before, Label()) == before


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_of_other_programs_are_shown(kind: str) -> None:
    found = read_label(header(thumbnail=data_of(picture(), kind)), "wave").thumbnail
    assert found is not None
    assert found.size == (300, 200)


@pytest.mark.parametrize(
    "told",
    [
        "",
        "data:image/png;base64,",
        "data:image/png;base64,AAAA",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,A",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:text/html,<script>alert(1)</script>",
        "https://example.org/seen.png",
        data_of(picture(), "gif").replace("image/gif", "image/png"),
        data_of(picture(2000, 10)),
        data_of(Image.new("L", (20_000, 20_000))),
        data_of(picture())[:-400],
        data_of(Image.frombytes("RGB", (600, 600), Random(0).randbytes(3 * 600 * 600))),  # over 1 MiB
    ],
    ids=range(13),
)
def test_a_picture_that_is_none_or_harms_is_not_shown(told: str) -> None:
    assert read_label(header(thumbnail=told), "wave").thumbnail is None


def test_only_the_first_frame_of_a_moving_picture_is_shown() -> None:
    written = BytesIO()
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    red.save(written, "PNG", save_all=True, append_images=[blue])
    told = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
    found = read_label(header(thumbnail=told), "wave").thumbnail
    assert found is not None
    assert found.getpixel((4, 4)) == (255, 0, 0)


ABOUT = {"prompt": "a person waves", "learned_for": "v3_sd15_mm (v3)", "steps": 20000}


def test_lines_tell_title_prompt_model_and_steps() -> None:
    told = header(title="Wave!", author="Ann", license="MIT", description="Both arms.")
    assert label_lines(read_label(told, "wave"), **ABOUT) == [
        "Wave!, by Ann (MIT).",
        'Prompt: "a person waves".',
        "For v3_sd15_mm (v3), 20000 steps.",
        "Both arms.",
    ]
    silent = {"prompt": "", "learned_for": "v3_sd15_mm (v3)", "steps": None}
    assert label_lines(read_label({}, "wave"), **silent) == ["wave.", "For v3_sd15_mm (v3)."]


def test_lines_of_strangers_are_short_and_on_one_line() -> None:
    told = header(title="A\n\u202ereversed\x1b[2J\x00" + "x" * 10**6)
    long = {**ABOUT, "prompt": "p" * 10**6, "learned_for": "m" * 10**6}
    lines = label_lines(read_label(told, "wave"), **long)
    assert all(len(line) < 150 and line.isprintable() for line in lines)
    assert lines[0].startswith("A reversed [2J xxx")
    assert lines[0].endswith("...")

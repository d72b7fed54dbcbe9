"""The label on a model file: what its header tells people, with a small picture.

The names are those of the SAI Model Spec 1.0. A header is what a stranger wrote: its texts are cut and
cleaned, and its picture is decoded only if it is small and of a plain kind.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageOps

from .containers import Unusable, small_picture
from .model_card import LICENCE, plain

THUMBNAIL = 256
"""Pixels on a side, as the standard recommends."""

_DATA = re.compile(r"data:image/(?:jpeg|png|webp);base64,([A-Za-z0-9+/]+={0,2})")
_MAX_DATA = 2**20
"""Letters of a picture in a header; one of ours has about 20,000."""
_MAX_SIDE = 1024
_LETTERS = 120
"""Of a text that is shown."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Texts for people; an empty one says nothing."""

    title: str = ""
    author: str = ""
    licence: str = ""
    description: str = ""
    thumbnail: Image.Image | None = None


_ENTRIES = {
    "title": "modelspec.title",
    "author": "modelspec.author",
    "licence": LICENCE,
    "description": "modelspec.description",
}
_PICTURE = "modelspec.thumbnail"


def with_label(header: Mapping[str, str], label: Label) -> dict[str, str]:
    """The header with this label; where the label says nothing, what was there stays."""
    texts = {entry: getattr(label, name).strip() for name, entry in _ENTRIES.items()}
    told = {entry: text for entry, text in texts.items() if text}
    if label.thumbnail is not None:
        told[_PICTURE] = _as_data(label.thumbnail)
    return {**header, **told}


def _as_data(picture: Image.Image) -> str:
    """The middle of a picture as a small JPEG, in the standard's words."""
    square = ImageOps.fit(picture.convert("RGB"), (THUMBNAIL, THUMBNAIL))
    written = BytesIO()
    square.save(written, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def read_label(header: Mapping[str, str], name: str) -> Label:
    """The label in a header, safe to show: texts of one line, and a picture if it can be decoded.

    Without a title it has the file's name.
    """
    texts = {field: one_line(header.get(entry, "")) for field, entry in _ENTRIES.items()}
    return Label(
        **{**texts, "title": texts["title"] or one_line(name)},
        thumbnail=_thumbnail(header.get(_PICTURE, "")),
    )


def _thumbnail(told: str) -> Image.Image | None:
    found = _DATA.fullmatch(told) if len(told) <= _MAX_DATA else None
    if found is None:
        return None
    try:
        return small_picture(base64.b64decode(found[1], validate=True), _MAX_SIDE)
    except (Unusable, binascii.Error):
        return None


def one_line(text: str) -> str:
    """The beginning of a text, on one line, without signs that are not seen."""
    return plain(text, _LETTERS)


def label_lines(label: Label, *, prompt: str, learned_for: str, steps: int | None) -> list[str]:
    """What a user may want to know of a file, in sentences: title, prompt, for which model, steps."""
    by = f", by {label.author}" if label.author else ""
    licence = f" ({label.licence})" if label.licence else ""
    learned = "" if steps is None else f", {steps} steps"
    lines = [
        f"{label.title}{by}{licence}",
        f'Prompt: "{one_line(prompt)}"' if prompt else "",
        f"For {one_line(learned_for)}{learned}",
        label.description,
    ]
    return [line if line.endswith((".", "!", "?")) else f"{line}." for line in lines if line]

"""Captions: text files beside clips."""

import codecs
import unicodedata
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".txt", ".text", ".caption", ".captions", ".cap")
"""Names that captions have elsewhere; here they end in the first."""

_MOST_BYTES = 2**16


def caption_path(clip: Path) -> Path:
    """Where a clip's caption lies, if it has one."""
    return clip.parent / f"{clip.name}.txt" if clip.is_dir() else clip.with_suffix(".txt")


def read_caption(clip: Path) -> str | None:
    """The text in the .txt file beside a clip, on one line; None if there is no such file.

    A byte order mark tells UTF-8 or UTF-16. A file without one is UTF-8, and what is no valid UTF-8 is in
    Windows' Western European (cp1252: Latin-1 with more letters).
    """
    path = caption_path(clip)
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"its caption {path.name} has {path.stat().st_size} bytes: write a sentence")
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    if "\0" in text or "\N{REPLACEMENT CHARACTER}" in text:
        raise ValueError(f"its caption {path.name} is no text that can be read: save it as UTF-8")
    if not text.strip():
        raise ValueError(f"its caption {path.name} is empty: write one, or delete the file to use the prompt")
    return " ".join(text.split())


def unmatched(path: Path, clips: Sequence[Path]) -> str | None:
    """Why a text file is no clip's caption; None if it is one."""
    for clip in clips:
        caption = caption_path(clip)
        if caption == path or (
            _same(caption.name, path.name) and caption.exists() and caption.samefile(path)
        ):
            return None if path.is_file() else "it is no file, and no caption"
    for clip in clips:
        if any(_same(path.stem, name) for name in (clip.name, clip.stem)):
            return f"it is not read: name it {caption_path(clip).name} if it is the caption of {clip.name}"
    return "it is the caption of no clip: none has its name"


def _same(name: str, other: str) -> bool:
    """Whether names are one to a person, and to some file systems."""
    folded = (unicodedata.normalize("NFC", text).casefold() for text in (name, other))
    return next(folded) == next(folded)

"""Files and folders that are written whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFTS = ".flash-*"
"""Names beside the file, of what a kill left half written."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to be written in place of the path, a file or a folder; it gets the path's name in the end.

    An interruption leaves the old file, or none, but never half of one.
    """
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=DRAFTS[:-1]) as folder:
        draft = Path(folder) / path.name
        yield draft
        os.replace(draft, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")

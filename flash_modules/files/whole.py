"""Files and folders that are written whole or not at all, and are on the disk before what is old goes."""

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "darwin":
    import fcntl

DRAFTS = ".flash-*"
"""Names beside the file, of what a kill left half written, or half removed."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FOLDERS_STAY = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""What file systems answer that know no fsync of folders (some network disks), or let nobody open them."""


class NotWritten(OSError):
    """Says in a sentence what was not written, and why."""

    def __init__(self, path: Path, number: int | None, reason: str) -> None:
        super().__init__(number, reason)
        self.path = path

    def __str__(self) -> str:
        remedy = "make room on its disk" if self.errno in _FULL else "see to its folder"
        return f"{self.path} could not be written ({self.strerror}): {remedy}, and try again."


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to be written in place of the path, a file or a new folder; it gets the path's name in the end.

    An interruption, by a kill or a power cut, leaves the old file, or none, but never half of one. A symbolic
    link stays: what it points to is written. Raises NotWritten if the disk does not take it.

    Tested on Linux: ext4 on a loop device, copied at random moments as if the power had gone. Not tested: on
    macOS F_FULLFSYNC is asked for, as fsync alone leaves data in the drive; Windows flushes files, and has no
    way to flush a folder.
    """
    final = Path(os.path.realpath(path))
    with (
        telling_what_fails(path),
        tempfile.TemporaryDirectory(dir=final.parent, prefix=DRAFTS[:-1]) as folder,
    ):
        draft = Path(folder) / path.name
        yield draft
        flush(draft)
        _flush_folder(Path(folder))
        rename(draft, final)


def check_place(path: Path) -> None:
    """Raise ValueError unless there is a folder for the file, where its link points if it is one."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"Nothing can be written into {folder}: give another folder, or allow it.")


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def rename(path: Path, final: Path) -> None:
    """Give a name to what lies on the disk; it has the name, for good, when this returns."""
    os.replace(path, final)
    _flush_folder(final.parent)


def discard(path: Path) -> None:
    """Remove a file, a folder or a link so that no reader ever sees a part of it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=DRAFTS[:-1]) as folder:
        os.replace(path, Path(folder) / path.name)


def clear_drafts(folder: Path) -> None:
    """Remove what a kill left half written, or half removed."""
    for draft in folder.glob(DRAFTS):
        if draft.is_dir() and not draft.is_symlink():
            shutil.rmtree(draft)
        else:
            draft.unlink()


def flush(path: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            flush(inner)
        _flush_folder(path)
    else:
        with path.open("rb+") as file:  # Windows flushes only what may be written
            flush_handle(file.fileno())


def flush_handle(handle: int) -> None:
    """Bring an open file to the disk."""
    if sys.platform == "darwin":
        with suppress(OSError):  # network disks do not know it
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            flush_handle(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _FOLDERS_STAY:
            raise


@contextmanager
def telling_what_fails(path: Path) -> Iterator[None]:
    """Give every error of writing this path one type and our words."""
    try:
        yield
    except OSError as error:  # of a part, perhaps, which has told of its draft
        raise NotWritten(path, error.errno, error.strerror or str(error)) from error

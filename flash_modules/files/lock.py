"""A folder in the hands of one process at a time. A kill lets go of it."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .whole import telling_what_fails

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = "lock"
"""The file in the folder that is locked. A kill leaves it there, unlocked, where it means nothing."""

_HELD = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)


class Held(ValueError):
    """Another process has the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have the folder alone. Raises Held, at once, if another process has it.

    Where a disk knows no locks (some network disks), nobody is kept out. Tested on Linux; Windows takes
    msvcrt's locks, untested.
    """
    path = folder / LOCK
    while True:
        with telling_what_fails(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, folder)
            if _is_at(handle, path):  # else the one who had it has just removed the file
                break
        except Held:
            os.close(handle)
            raise
        os.close(handle)
    try:
        yield
    finally:
        _let_go(handle, path)


def _lock(handle: int, folder: Path) -> None:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise Held(f"{folder} is in use by another process.") from error
        # else the disk knows no locks


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _let_go(handle: int, path: Path) -> None:
    if os.name == "nt":  # which removes no open file, and so none that another process has opened
        os.close(handle)
        with suppress(OSError):
            path.unlink()
    else:
        path.unlink(missing_ok=True)
        os.close(handle)

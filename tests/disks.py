"""Small disks for tests, which take a system administrator (root on Linux); elsewhere those tests skip."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _call(*words: object) -> None:
    if not shutil.which(str(words[0])):
        pytest.skip(f"there is no {words[0]} here")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{words[0]} is not allowed here: {done.stderr.strip()}")


@contextmanager
def mounted(place: Path, *words: object) -> Iterator[Path]:
    """A disk at that place, as long as it is used."""
    place.mkdir(exist_ok=True)
    _call("mount", *words, place)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def small_disk(place: Path, num_bytes: int) -> "Iterator[Path]":
    """A disk that is soon full."""
    return mounted(place, "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs")


def make_image(file: Path, megabytes: int) -> None:
    """An ext4 disk as a file."""
    with file.open("wb") as image:
        image.truncate(megabytes * 2**20)
    _call("mkfs.ext4", "-q", "-F", file)


def mounted_image(file: Path, place: Path) -> "Iterator[Path]":
    """The disk in that file; after a power cut its journal is played back, as at the next start."""
    return mounted(place, "-o", "loop", file)

"""What is said when Ctrl-C ended a command: what is there, and what was there before."""

import argparse
from pathlib import Path

from ..training.run_folder import checkpoint_steps


def place(args: argparse.Namespace) -> Path | None:
    """What a command writes: its file, or its run's folder; None for one that only says something."""
    if args.out is None:
        return None
    return args.out if isinstance(args.out, Path) else Path(args.runs) / args.out


def stamp(path: Path | None) -> tuple[int, int] | None:
    """Changes whenever the file is written anew; None if there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_ino, found.st_mtime_ns


def what_is_left(args: argparse.Namespace, before: tuple[int, int] | None) -> str:
    """What the command wrote, or what of its run is kept."""
    path = place(args)
    if isinstance(args.out, Path):
        return "Nothing was written." if stamp(path) == before else f"{path} was written."
    if path is None or not path.is_dir():
        return "Nothing was written."
    steps = checkpoint_steps(path)
    if not steps:
        return f"Nothing was learned yet; {path} holds the run's settings."
    return f"Checkpoint {steps[0]} is kept in {path}: the same command goes on from there."

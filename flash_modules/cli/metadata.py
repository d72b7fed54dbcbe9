"""What the videos of the command line say of themselves."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..files.provenance import Origin, origin_of


def add_metadata_argument(group: Any) -> None:
    """The switch that takes metadata away."""
    group.add_argument(
        "--no-metadata",
        action="store_true",
        help="do not say in the file that the video is generated (IPTC's DigitalSourceType), and from which "
        "action and picture (names and SHA-256)",
    )


def origin(args: argparse.Namespace, files: Iterable[tuple[str, Path | None]]) -> Origin | None:
    """The origin of a video that these files make, by kinds; None, and said, if it is not wanted."""
    if args.no_metadata:
        print("The file will not say that the video is generated (--no-metadata).", file=sys.stderr)
        return None
    return origin_of(files)

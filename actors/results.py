"""What measuring commands keep and print: results in files, spreads in tables."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any


def keep(file: Path, made: Any) -> None:
    """Write plain values as JSON; a killed run leaves no half file."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, file)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; the mean alone of a single value."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"

"""What measuring commands keep and print: results in files, spreads in tables."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What the JSON file holds; if there is none yet, what `make` gives (plain values) is written there."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = make()
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, file)  # a killed run leaves no half file
    return json.loads(file.read_text(encoding="utf-8"))


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; the mean alone of a single value."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"

"""What measuring commands keep and print: results in files, spreads in tables."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from flash_modules.training.changes import changes


def kept(file: Path, settings: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """What the JSON file holds; if there is none yet, what `make` gives (plain values) is written there.

    Settings, plain values too, lie beside it: what was made by others raises ValueError.
    """
    settings = json.loads(json.dumps(settings))
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = {"settings": settings, "result": make()}
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, file)  # a killed run leaves no half file
    read = json.loads(file.read_text(encoding="utf-8"))
    then = read.get("settings", {}) if isinstance(read, dict) else {}
    if found := list(changes(then, settings)):
        raise ValueError(
            f"{file} was made with other settings ({'; '.join(found)}): give another --out, or delete it."
        )
    return read["result"]


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; the mean alone of a single value."""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"

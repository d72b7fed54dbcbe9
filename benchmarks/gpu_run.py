"""One sitting of `make bench-gpu`: its records, and what its parts must know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    name: str
    limit: float
    """Seconds."""


PARTS = (
    Part("correctness", 75),
    Part("generation", 90),
    Part("training 512", 75),
    Part("profile of training 512", 60),
    Part("ComfyUI", 120),
    Part("training 384", 60),
    Part("training 256", 50),
    Part("details", 60),
    Part("FlexiAct", 150),
    Part("Wan", 120),
    Part("compiled", 240),
    Part("pretraining", 3600),
)

Record = dict[str, Any]
"""A line of results.jsonl. It tells the `host`, the `planned` rows, or a row by its name with what was
measured or `error`; or how a part `ended`, and of which command."""

Key = tuple[object, ...]


def key(record: Record) -> Key:
    """What tells a part's rows apart."""
    return record["row"], record.get("dtype"), record.get("video")


def read_records(path: Path) -> list[Record]:
    """All that was written; a line that a stopped process left half is no record."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What each part is told."""

    folder: Path
    """Of the results."""
    dry: bool = False
    """Small shapes, on the CPU where there is no GPU."""
    peer: Path | None = None
    """A checkout of AnimateDiff-Evolved."""
    seconds: float = 60.0
    """That the part has."""
    before: Mapping[Key, Record]
    """The part's rows that were measured before."""

    @property
    def rounds(self) -> int:
        """Timed steps of each row."""
        return 1 if self.dry else 3


def measured_before(records: Sequence[Record], part: str) -> dict[Key, Record]:
    rows = (record for record in records if record["part"] == part and "row" in record)
    return {key(row): row for row in rows if "error" not in row}

"""JSON files of the user's, or of others: an object in UTF-8."""

import json
from pathlib import Path
from typing import Any

_MAX_BYTES = 64 * 2**20
"""Vocabularies have one; whatever is larger is something else."""


def read_json(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises ValueError, naming the file, if it holds anything else."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}).") from error
    if not data.strip():
        raise ValueError(f"{path} is empty: put back what was in it.")
    if len(data) > _MAX_BYTES:
        raise ValueError(f"{path} is larger than 64 MiB, and so no settings: put back what was in it.")
    try:
        return parse_json(data)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): put back what was in it.") from error


def parse_json(data: bytes | str) -> dict[str, Any]:
    """The object that a text holds. Raises ValueError for anything else."""
    value = _parse(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} in place of names and values")
    return value


def parse_list(data: bytes | str) -> list[Any]:
    """The list that a text holds. Raises ValueError for anything else."""
    value = _parse(data)
    if not isinstance(value, list):
        raise ValueError(f"it holds a {type(value).__name__} in place of a list")
    return value


def _parse(data: bytes | str) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

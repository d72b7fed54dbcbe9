"""The file that a run writes among ComfyUI's models: never over a file of another run."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ....files.whole import check_place
from ....training.run_folder import RunFolder, check_run_name
from ..folders import RUNS, written_path
from .show import sample_folder

RUN = "flash.run"
"""Entry of the header that names the run which wrote the file."""


@dataclass(frozen=True)
class Result:
    """Where that file goes, and the run's id."""

    path: Path
    run_id: str

    @property
    def header(self) -> dict[str, str]:
        """Entries for the file's header."""
        return {RUN: self.run_id}

    def steps_if_done(self, run: RunFolder | None, wanted: int) -> int | None:
        """How many steps the file has learned, if those are all of the run's, and all that are wanted.

        `run` is None where none was begun. Raises ValueError if the file is not this run's.
        """
        steps, newest = self._steps(), run.checkpoints()[:1] if run else []
        return steps if newest and steps == newest[0] >= wanted else None

    def _steps(self) -> int | None:
        """How many steps the file has learned; None where there is none.

        Raises ValueError if it is not this run's.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                header = file.metadata() or {}
        except (SafetensorError, OSError):
            header = {}
        if header.get(RUN) != self.run_id:
            raise ValueError(
                f"There is a file {self.path.name} already, and this run did not write it: give the run "
                f"another name, or take that file away. It lies in {self.path.parent}."
            )
        return int(header.get("flash.steps", -1))


def run_id(settings: Mapping[str, Any]) -> str:
    """What a run is known by: its settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def check_places(run_name: str, result: Path, *, samples: bool) -> None:
    """Raise ValueError unless all that the run writes can be written: an action after hours of training."""
    check_run_name(written_path(RUNS, ""), run_name)
    check_place(result)
    if samples:
        check_run_name(sample_folder(""), run_name)


def run_state(run_name: str) -> str:
    """Changes when the run has gone on: then its node must look again."""
    checkpoints = written_path(RUNS, run_name).glob("checkpoint-*")
    return str(sorted(path.name for path in checkpoints))

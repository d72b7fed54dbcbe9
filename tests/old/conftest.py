"""Files of users, as the code before the first change of folders wrote them (version 0.1.0, fe949db).

They are never made anew: where a test here fails, files and commands that users have do not go on working.

`commands.json` holds the commands. Each of `runs` was stopped by its stop file, the details after step 6 and
the others after step 2, and `expected/` holds what that code itself ended with, and its `videos`. Of the runs
of `defaults` there are settings alone. Weights lie in `tensors.zip`: random numbers, most of which are 0 and
stay 0, for a short file.
"""

import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported

import pytest
import torch

HERE = Path(__file__).parent

torch.set_num_threads(1)  # models this small only wait for a second thread


@pytest.fixture(scope="session")
def commands() -> dict:
    """The commands of `commands.json`, as lists of words."""
    return json.loads((HERE / "commands.json").read_text())


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files; nothing is written there."""
    folder = shutil.copytree(HERE / "files", tmp_path_factory.mktemp("old") / "files")
    shutil.unpack_archive(HERE / "tensors.zip", folder)
    return folder


@pytest.fixture
def old(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all files, in the folder that commands run in."""
    folder = shutil.copytree(unpacked, tmp_path / "old")
    monkeypatch.chdir(folder)
    return folder

"""The cards of ComfyUI's templates."""

from pathlib import Path

import numpy as np
from PIL import Image

from actors.__main__ import main

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


def test_the_shipped_cards_are_what_the_command_draws(tmp_path: Path) -> None:
    assert main(["thumbnails", "--out", str(tmp_path)]) == 0
    drawn = list(tmp_path.glob("*.jpg"))
    assert {path.stem for path in drawn} == {path.stem for path in WORKFLOWS.glob("*.json")}
    for path in drawn:
        ours, shipped = (np.asarray(Image.open(file), float) for file in (path, WORKFLOWS / path.name))
        assert np.abs(ours - shipped).mean() < 2  # JPEG and fonts differ a little between versions

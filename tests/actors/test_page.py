"""The page of the small base, by an untrained one."""

from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.__main__ import main
from actors.base.small_base import SAMPLER, SmallBase
from actors.studies import page
from actors.world.clips import clip_video


def test_the_page_and_its_picture_show_every_action_beside_its_truth(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_steps = partialmethod(SmallBase.animate, config=replace(SAMPLER, steps=2))
    monkeypatch.setattr(SmallBase, "animate", two_steps)
    monkeypatch.setattr(page, "ACTIONS", ("arm wave", "push-up"))
    monkeypatch.setattr(page, "EXTRA_MOTIONS", ())
    monkeypatch.setattr(page, "NUM_TRUTHS", 2)
    seen: list[page.Sample] = []
    drawn = page.draw_samples

    def draw_samples(*args: object, **how: object) -> list[page.Sample]:
        seen.extend(drawn(*args, **how))
        return seen

    monkeypatch.setattr(page, "draw_samples", draw_samples)
    out, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    words = ["page", "--base", str(tiny_base), "--pictures", "1", "--out", str(out), "--sheet", str(sheet)]
    assert main(words) == 0
    text = out.read_text()
    assert all(f"{action} (" in text for action in page.ACTIONS)
    assert "| seen actions |" in text
    with Image.open(sheet) as file:
        pixels_HWC = torch.from_numpy(np.array(file)) / 255
    assert pixels_HWC.shape == (2 * 96, 2 * 4 * 96, 3)  # two actions beside each other, the seen one first
    for left, number in ((0, 1), (384, 0)):
        for row, video_FHWC in enumerate((clip_video(seen[number].truth), seen[number].video_FHWC)):
            for column in range(4):
                y, x = 96 * row, left + 96 * column
                found_HWC = pixels_HWC[y : y + 96, x : x + 96]
                torch.testing.assert_close(found_HWC, video_FHWC[2 * column], rtol=0, atol=0.003)

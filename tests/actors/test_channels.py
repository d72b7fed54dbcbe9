"""Which channels alignment chooses: those of a still clip, or those that move."""

from pathlib import Path

import pytest
import torch

from actors.__main__ import main
from actors.studies import channels
from actors.studies.channels import _found

F, C, N = 8, 20, 30


def test_what_is_chosen_of_noise_is_chosen_of_a_still_clip_too() -> None:
    """Channels 0 and 1 answer to noise most; 2 and 3 move, and the twin's with them."""
    noise = torch.randn(3, F, C, N, dtype=torch.float64)
    noise[:, :, :2] *= 10
    noise[:, :, 2:4] *= 0.1
    course = torch.zeros(F, C, 1, dtype=torch.float64)
    course[:, 2:4] = torch.linspace(-3, 3, F, dtype=torch.float64)[:, None, None]
    features = torch.stack([noise[0] + course, noise[0], noise[1] + course, noise[0] + course])
    paper, beyond = (_found(features, 90.0, beyond_still) for beyond_still in (False, True))
    assert paper.as_still == 1.0
    assert paper.moves == pytest.approx(1.0)
    assert abs(paper.like_twin) < 0.2
    assert paper.like_twin_in_its_noise == pytest.approx(1.0)
    assert beyond.as_still == 0.0
    assert beyond.moves > 5
    assert beyond.like_twin > 0.9


def test_tables_have_a_row_for_each_choice(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(channels, "TIMESTEPS", (100, 900))
    monkeypatch.setattr(channels, "HELD_OUT_ACTIONS", ("arm wave",))
    assert main(["channels", "--base", str(tiny_base), "--clips", "1"]) == 0
    said = capsys.readouterr().out.strip().split("\n\n")
    assert [table.splitlines()[0].split(" | ")[0][2:] for table in said] == [
        *("as_still", "moves", "like_twin", "like_twin_in_its_noise")
    ]
    for table in said:
        assert [line.split(" | ")[0][2:] for line in table.splitlines()[2:]] == [*channels.CHOICES]

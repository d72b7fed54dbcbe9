"""True videos that the base draws again, by an untrained one."""

from pathlib import Path

import pytest

from actors import redrawn
from actors.__main__ import main


def test_a_true_video_is_read_best_and_noise_of_an_untrained_base_worst(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(redrawn, "HELD_OUT_ACTIONS", ("balance beam jump",))
    monkeypatch.setattr(redrawn, "NUM_TRUTHS", 2)
    monkeypatch.setattr(redrawn, "_TIMESTEPS", (100, 700))
    assert main(["redrawn", "--base", str(tiny_base), "--pictures", "1"]) == 0
    head, rule, row = capsys.readouterr().out.splitlines()
    assert head == "|  | still | floor | true | VAE | from 100 | from 700 |"
    assert head.count("|") == rule.count("|") == row.count("|")
    name, _, _, true, _, little, much = (cell.strip() for cell in row.strip("|").split("|"))
    assert name == "balance beam jump"
    true_error, little_error, much_error = (float(cell.split(" ")[0]) for cell in (true, little, much))
    assert true_error < little_error
    assert true_error < much_error
    assert true.endswith("(1.00)")

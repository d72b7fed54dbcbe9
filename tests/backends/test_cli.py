"""`python -m flash_modules`: the help."""

import runpy
import sys

import pytest


def test_help_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flash_modules", "animate", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("flash_pack.flash_modules", run_name="__main__")
    said = capsys.readouterr().out
    for flag in (
        "--base",
        "--tokenizer",
        "--motion",
        "--action",
        "--strength",
        "--image",
        "--prompt",
        "--out",
    ):
        assert flag in said

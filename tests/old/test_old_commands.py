"""Old command lines are read, and mean what they meant."""

import re
from pathlib import Path

import pytest

from flash_pack.flash_modules import cli
from flash_pack.tests.backends.command_line import sentence_of

REFUSED = {
    "animate": "There is no base model at nowhere",
    "preview": "There is no folder nowhere",
    "train": "There is no base model at nowhere",
    "train-decoder": "There is no VAE at nowhere",
}
"""What each command says of a file that is not there, after it has read all options."""


@pytest.mark.parametrize("command", REFUSED)
def test_every_old_option_is_read(
    old: Path, commands: dict, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main(commands["every option"][command]) == 2
    assert REFUSED[command] in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize("command", REFUSED)
def test_every_old_choice_is_read(
    old: Path, commands: dict, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for option, choices in commands["choices"][command].items():
        for choice in choices:
            assert cli.main([*commands["least"][command], option, choice]) == 2
            assert REFUSED[command] in sentence_of(capsys.readouterr().err)


@pytest.mark.parametrize("command", REFUSED)
def test_every_old_default_is_told(
    commands: dict, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # fewer would break words
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for option, default in commands["told defaults"][command].items():
        assert re.search(rf" {option} (?:(?! --).)*\bdefault {re.escape(default)}(?![\w.])", said), option


def test_an_old_preview_is_drawn(old: Path, commands: dict) -> None:
    assert cli.main(commands["preview"]) == 0
    assert (old / "sheet.png").is_file()

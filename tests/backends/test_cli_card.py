import json
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules import cli
from flash_pack.flash_modules.files.tensor_file import read_tensors, write_tensors
from flash_pack.tests.backends.command_line import sentence_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jump.safetensors"
    write_tensors(path, {"w": torch.arange(3.0)}, {"format": "pt", "flash.kind": "compact"})
    return path


def test_a_copy_gets_measures_and_a_licence_and_the_file_stays(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_bytes()
    report = tmp_path / "r.json"
    score = {"value": 0.5, "spread": None, "videos": 1}
    report.write_text(json.dumps({"command": "evaluate", "methods": {"m": {"scores": {"leak": score}}}}))
    out = tmp_path / "told.safetensors"
    more = ["--measures", str(report), "--licence", "CC0", "--out", str(out)]
    assert cli.main(["card", str(file), *more]) == 0
    said = capsys.readouterr().out
    assert "Licence: CC0" in said
    assert "  m, leak: 0.5 ± None, n = 1" in said
    assert file.read_bytes() == before
    tensors, metadata = read_tensors(out)
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert metadata["flash.kind"] == "compact"
    assert cli.main(["card", str(file)]) == 0
    assert "Licence: not stated" in capsys.readouterr().out


def test_mistakes_are_said_in_a_sentence(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, wanted in (
        ([str(tmp_path / "none.safetensors")], "There is no file none.safetensors"),
        ([str(file), "--licence", "CC0"], "go into a copy of the file: give its name with --out"),
        ([str(file), "--out", str(tmp_path / "a.ckpt")], "let it end in .safetensors"),
        ([str(file), "--out", str(file)], "is the file itself, which stays as it is"),
    ):
        assert cli.main(["card", *arguments]) == 2
        assert wanted in sentence_of(capsys.readouterr().err)

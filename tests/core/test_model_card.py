import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from flash_pack.flash_modules.files.model_card import card_entry, model_card, plain, with_measures
from flash_pack.flash_modules.files.tensor_file import write_tensors

HEADER = {
    "flash.format": "1",
    "flash.kind": "standalone",
    "modelspec.title": "jump",
    "flash.base": json.dumps({"name": "v1-5", "sha256": "ab" * 32, "version": ""}),
    "flash.motion_module": json.dumps({"name": "v3_sd15_mm", "sha256": "cd" * 32, "version": "v3"}),
    "flash.prompts": json.dumps(["a person is jumping", "she jumps"]),
    "flash.data": json.dumps({"n_clips": 4, "sha256": [f"{i}" * 64 for i in range(4)]}),
    "flash.steps": "3000",
    "flash.lr": "5e-05",
    **card_entry(intended_use="pictures of one's own", limits=["few clips"]),
}
REPORT = {
    "command": shlex.join(["flash", "evaluate", "--videos", "a=/clips/ours", "--out", "C:\\me\\r.html"]),
    "methods": {"ours": {"scores": {"flicker": {"value": 1.5, "spread": 0.25, "videos": 6}}}},
}


def card(tmp_path: Path, metadata: Mapping[str, str]) -> list[str]:
    path = tmp_path / "jump.safetensors"
    write_tensors(path, {"w": torch.ones(1)}, metadata)
    return model_card(path).splitlines()


def test_a_card_tells_from_what_and_how_it_was_learned(tmp_path: Path) -> None:
    lines = card(tmp_path, HEADER)
    assert lines == [
        "# jump.safetensors",
        "Title: jump",
        "Kind: standalone",
        "Learned on: v1-5 (SHA-256 abababababababab)",
        "Motion module: v3_sd15_mm, v3 (SHA-256 cdcdcdcdcdcdcdcd)",
        "Prompts: a person is jumping; she jumps",
        f"Learned from: 4 clips (SHA-256 {'0' * 16}, {'1' * 16}, {'2' * 16} and 1 more)",
        "Licence: not stated; the base model's and the clips' hold",
        "Intended use: pictures of one's own",
        "Limits:",
        "- few clips",
        "Measures:",
        "- none in the file",
        "Settings:",
        "- lr: 5e-05",
        "- steps: 3000",
    ]


def test_measures_come_with_their_command_and_without_folders(tmp_path: Path) -> None:
    lines = card(tmp_path, with_measures({**HEADER, "modelspec.license": "CC BY 4.0"}, REPORT))
    assert "Licence: CC BY 4.0" in lines
    start = lines.index("Measures:")
    assert lines[start + 1] == "- flash evaluate --videos a=ours --out r.html"
    assert lines[start + 2] == "  ours, flicker: 1.5 ± 0.25, n = 6"
    assert "few clips" in "\n".join(lines)
    twice = with_measures(with_measures(HEADER, REPORT), REPORT)
    commands = [measure["command"] for measure in json.loads(twice["flash.card"])["measures"]]
    assert len(commands) == 2


def test_a_file_without_a_card_says_what_is_not_stated(tmp_path: Path) -> None:
    lines = card(tmp_path, {"ss_sd_model_name": "some.ckpt"})
    assert lines[:3] == ["# jump.safetensors", "Learned on: some.ckpt", "Learned from: not stated"]
    assert "Intended use: not stated" in lines


@pytest.mark.parametrize(
    "text",
    ["[1", "[]", "null", '{"measures": 3, "limits": "x"}', '{"measures": [3, {"scores": [1]}]}', "[" * 10**5],
)
def test_a_damaged_card_is_none(tmp_path: Path, text: str) -> None:
    lines = card(tmp_path, {"flash.card": text, "flash.data": text})
    assert "Learned from: not stated" in lines
    assert "Limits:" in lines


def test_what_a_stranger_wrote_obeys_no_terminal_and_is_cut(tmp_path: Path) -> None:
    harm = "\x1b]0;owned\x07\x1b[2J\u202ered\n# forged"
    header = {**HEADER, "modelspec.title": harm, "flash.x\x1b[2J": harm, "modelspec.license": "x" * 10_000}
    text = "\n".join(card(tmp_path, header))
    assert text.isprintable() or all(sign.isprintable() or sign == "\n" for sign in text)
    assert "\n# forged" not in text
    assert len(text) < 3000
    assert plain("a\tb\u200bc") == "a b c"


def test_a_report_that_is_none_is_refused() -> None:
    for report in ({}, {"methods": {}}, {"methods": [], "command": "x"}):
        with pytest.raises(ValueError, match="The report holds no scores"):
            with_measures(HEADER, report)

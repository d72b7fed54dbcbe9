"""A few of the spoiled files of `make fuzz`, of all kinds but pictures and clips."""

import dataclasses
from pathlib import Path

import pytest

from flash_pack.tests.fuzz.__main__ import BAD, Outcome, fuzz, show, try_file
from flash_pack.tests.fuzz.kinds import Kind, make_kinds
from flash_pack.tests.fuzz.transfer_kinds import transfer_kinds

FILES = 3
"""Of each kind."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Kind]:
    folder = tmp_path_factory.mktemp("fuzz")
    return [*make_kinds(folder / "good", large=10**7), *transfer_kinds(folder / "good-transfer")]


def test_spoiled_files_are_read_or_refused_in_a_sentence(kinds: list[Kind], tmp_path: Path) -> None:
    bad: list[str] = []

    def on_file(kind: Kind, number: int, outcome: Outcome, what: str) -> None:
        if outcome.name in BAD:
            bad.append(f"{kind.name} {number} {what}: {outcome.name} {outcome.words}")

    chosen = [
        dataclasses.replace(kind, attacks=(), share=1.0)
        for kind in kinds
        if not kind.name.startswith(("picture", "clip"))
    ]
    (tmp_path / "good").mkdir()
    table = fuzz(chosen, tmp_path, FILES * len(chosen), seed=1, on_file=on_file, least=FILES)
    assert not bad, "\n".join([*bad, *show(table)])
    assert sum(counted["refused"] for counted in table.values()) > len(chosen)


def fail(path: Path) -> None:
    raise KeyError("raw")


def refuse(path: Path) -> None:
    raise ValueError("a sentence")


def fill(path: Path) -> None:
    bytearray(2**28)


def run(path: Path) -> None:
    import subprocess

    subprocess.run(["true"], check=True)


def garble(path: Path) -> None:
    "\udcff".encode()


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (len, "raw"),
        (fail, "raw"),
        (garble, "raw"),
        (refuse, "refused"),
        (fill, "memory"),
        (run, "run"),
        (str, "ok"),
    ],
)
def test_each_outcome_is_told_apart(tmp_path: Path, read, name: str) -> None:
    (tmp_path / "file").touch()
    few = try_file(str, tmp_path / "file", 10**15, tmp_path / "trap").rss + 2**26
    assert try_file(read, tmp_path / "file", few, tmp_path / "trap").name == name


def test_a_reader_that_does_not_end_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flash_pack.tests.fuzz.__main__.SECONDS", 0.5)

    def hang(path: Path) -> None:
        while True:
            pass

    assert try_file(hang, tmp_path / "file", 10**15, tmp_path / "trap").name == "hang"

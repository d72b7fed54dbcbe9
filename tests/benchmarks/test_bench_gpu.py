"""`make bench-gpu`: every part with small shapes, and what becomes of parts that fail or take too long."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_parts, gpu_pretraining
from benchmarks.bench_gpu import Results, main, process, run_part, run_parts
from benchmarks.gpu_page import page
from benchmarks.gpu_run import PARTS, Part, read_records

ROW = {"row": "a step", "dtype": "float16", "video": "2 x 8x8", "seconds": 0.5, "flops": 10**12}


@pytest.mark.parametrize(
    "part",
    [
        "correctness",
        "generation",
        "training 256",
        "details",
        "FlexiAct",
        "compiled",
        "pretraining",
        "profile of training 512",
    ],
)
def test_every_row_of_a_part_is_measured(part: str, tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    gpu_parts.main([*process(Part(part, 9), results.path, 9)[3:], "--dry"])
    rows = [record for record in results.records() if "row" in record]
    assert rows
    assert not [record for record in rows if "error" in record]
    for row in rows:
        assert row.get("seconds", 1.0) > 0.0
        assert row.get("difference", 0.0) < 0.3  # two bytes a number
        if "fp32" in row["row"] or "against" in row["row"]:
            assert row["difference"] < 1e-6


def test_a_folder_comes_back_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_pretraining, "PIECE", 4000)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "weights").write_bytes(bytes(range(256)) * 40)
    gpu_pretraining.write_pieces(tmp_path / "there", tmp_path)
    pieces = sorted(tmp_path.glob("base.tar.*"))
    assert len(pieces) > 2
    assert max(piece.stat().st_size for piece in pieces) == 4000
    subprocess.run("cat base.tar.* | tar x", shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / "base" / "weights").read_bytes() == bytes(range(256)) * 40


def test_parts_of_the_command_are_those_that_exist() -> None:
    assert [part.name for part in PARTS] == list(gpu_parts.PARTS)


def script(part: Part, path: Path) -> list[str]:
    """A part that writes a row, and then ends as its name says."""
    row = json.dumps({"part": part.name, **ROW})
    ends = {"good": "", "bad": "raise SystemExit('it broke')", "slow": "import time; time.sleep(60)"}
    code = f"open({str(path)!r}, 'a').write({row!r} + '\\n'); {ends[part.name]}"
    return [sys.executable, "-c", code]


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_others(tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    parts = [Part("bad", 9), Part("slow", 1), Part("good", 9)]
    run_parts(parts, results, lambda part, limit: script(part, results.path), time.monotonic() + 99)
    ends = {record["part"]: record for record in results.records() if "ended" in record}
    assert [record["ended"] for record in ends.values()] == ["failed", "stopped at its limit of 1 s", "done"]
    assert "it broke" in ends["bad"]["message"]
    assert sum("row" in record for record in results.records()) == 3


def test_parts_that_are_done_are_not_run_again(tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    ran: list[str] = []

    def command(part: Part, limit: float) -> list[str]:
        assert limit == part.limit
        ran.append(part.name)
        return script(part, results.path)

    for _ in range(2):
        run_parts([Part("good", 9), Part("bad", 9)], results, command, time.monotonic() + 99)
    assert ran == ["good", "bad", "bad"]


def test_nothing_begins_without_time_left(tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    run_parts([Part("good", 9)], results, lambda part, limit: [], time.monotonic() + 1)
    assert results.records() == []


def test_the_plan_tells_limits_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Results(tmp_path, "a command").add(PARTS[0], ended="done")
    main(["--plan", "--out", str(tmp_path)])
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["correctness: measured before", "generation: at most 90 s"]
    assert len(told) == len(PARTS)
    assert len(read_records(tmp_path / "results.jsonl")) == 1


def test_half_a_line_is_no_record(tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    results.path.write_text('{"part": "good", "row": "torn')
    results.add(Part("good", 9), ended="done")
    assert results.records() == [{"part": "good", "ended": "done"}]


def test_the_page_has_all_rows_and_says_what_was_not_measured() -> None:
    plan = {"part": "generation", "planned": ["a step", "another"], "dtype": "float16", "video": "2 x 8x8"}
    broken = {
        "part": "details",
        "row": "decode",
        "dtype": "float32",
        "video": "",
        "error": "no | memory\nat all",
    }
    check = {"part": "correctness", "row": "net: fp32", "difference": 1.26e-6}
    host = {"part": "generation", "host": {"card": "a card", "torch": "2.0"}}
    ended = {"part": "generation", "ended": "done", "command": "a command"}
    older = {"part": "generation", **ROW, "seconds": 9.0}
    records = [host, plan, older, {"part": "generation", **ROW}, broken, check, ended]
    lines = page(records).splitlines()
    assert "Made by `a command`; rows that were never measured say so." in lines
    assert "- a card, torch 2.0" in lines
    assert "| a step | float16 | 2 x 8x8 | 0.500 | 1 | 2 |  |  |" in lines
    assert "| another | float16 | 2 x 8x8 | not measured |  |  |  |  |" in lines
    assert "| decode | float32 |  | not measured: no / memory |  |  |  |  |" in lines
    assert "| net: fp32 | 1.3e-06 |" in lines
    assert lines[lines.index("## Compiled") + 4] == "All rows: not measured."


def test_what_a_part_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import time; time.sleep(4); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    ended, _ = run_part([sys.executable, "-c", code], 2)
    assert ended == "stopped at its limit of 2 s"
    time.sleep(4)
    assert not mark.exists()


def test_rows_that_were_measured_are_not_measured_again(tmp_path: Path) -> None:
    results = Results(tmp_path, "a command")
    arguments = [*process(Part("details", 9), results.path, 9)[3:], "--dry"]
    for _ in range(2):
        gpu_parts.main(arguments)
    assert [record["row"] for record in results.records() if "row" in record] == [
        "plain decode",
        "with details",
    ]


def test_the_page_in_docs_is_what_the_kept_results_say() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    assert page(read_records(docs / "speed.jsonl")) == (docs / "speed.md").read_text()


def test_a_command_that_cannot_start_says_why() -> None:
    ended, message = run_part([sys.executable, "-m", "benchmarks.no_such_part"], 20)
    assert ended == "failed"
    assert "no_such_part" in message

"""The page of `make bench-gpu`: tables of what was measured, and what was not.

From results that were kept: `python -m benchmarks.gpu_page docs/speed.jsonl docs/speed.md`.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .gpu_run import PARTS, Record, key, read_records

NOT_MEASURED = "not measured"
GIB, TERA = 2**30, 1e12
ABOUT = {
    "correctness": "Small nets of random weights; relative differences in the Euclidean norm, against the "
    "same in fp32 on the CPU. Those of bf16 and fp16 are the formats' own rounding.",
    "generation": "One step of classifier-free guidance at Stable Diffusion 1.5's widths, both prompts in "
    "one batch; random weights.",
    "training 512": "One step on a clip and its twin: noise, forward and backward pass, AdamW; bf16 "
    "autocast. MFU: TFLOP without layers that run again, by time and by the rate of the matrix product.",
    "profile of training 512": "The first row of training 512 again, by what its kernels compute.",
    "details": "Decoding a video frame by frame at the VAE's own widths; the picture's features are at hand.",
    "FlexiAct": "CogVideoX-5b-I2V, random weights: a step with guidance, both prompts one after the other; a "
    "step of learning, with every setting that saves memory.",
    "Wan": "Learning on Wan2.2 TI2V-5B of random weights, a LoRA of rank 16, in ComfyUI's Python: a step on "
    "a clip and its twin with alignment, on both without it, and on one clip alone.",
    "ComfyUI": "Steps of ComfyUI's own sampler, both prompts in one batch; random weights.",
    "pretraining": "The small base of actors/, in what is left of the time.",
    "compiled": "The step of generation, compiled by torch.compile.",
}
NOTES = (
    "Seconds: median of 3 steps (a whole run: 1) after two to warm up. Each row is by itself.",
    "TFLOP: counted in matrix products, convolutions and attention; a multiply and an add are two.",
    "Peak memory: of torch's allocations during a step, weights included.",
)


def main() -> None:
    results, target = map(Path, sys.argv[1:])
    target.write_text(page(read_records(results)))


def page(records: Sequence[Record]) -> str:
    """The whole page, Markdown. Parts without a row say that they were never measured."""
    commands = dict.fromkeys(f"`{record['command']}`" for record in records if "command" in record)
    made = f"Made by {' and '.join(commands)}; rows" if commands else "Rows"
    lines = ["# Speed on a GPU", "", f"{made} that were never measured say so.", ""]
    lines += [f"- {host}" for host in dict.fromkeys(map(describe, records)) if host]
    for part in (part.name for part in PARTS):
        lines += ["", f"## {part[0].upper()}{part[1:]}", ""]
        lines += [ABOUT[part], ""] if part in ABOUT else []
        lines += section([record for record in records if record["part"] == part])
    return "\n".join([*lines, "", *(f"- {note}" for note in NOTES), ""])


def describe(record: Record) -> str:
    """What it was measured on, if the record says that."""
    host = dict(record.get("host", {}))
    card = host.pop("card", "")
    return ", ".join([card, *(f"{name} {version}" for name, version in host.items())])


STEPS = (
    "| row | dtype | video | seconds | TFLOP | TFLOP/s | MFU | peak memory |",
    "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
)
DIFFERENCES = ("| what | difference |", "| --- | ---: |")
SHARES = ("| what computes | milliseconds | of the step | calls |", "| --- | ---: | ---: | ---: |")


def section(records: Sequence[Record]) -> list[str]:
    rows = {key(row): row for row in planned(records)}  # a row that was measured again replaces the older
    rows |= {key(record): record for record in records if "row" in record}
    if not rows:
        lines = [f"All rows: {NOT_MEASURED}."]
    else:
        lines = [line for table in tables(list(rows.values())) for line in ("", *table)][1:]
    ends = [record for record in records if "ended" in record]
    if ends and ends[-1]["ended"] != "done":
        lines += ["", f"This part {ends[-1]['ended']}.", *last_words(ends[-1]["message"])]
    return lines


def tables(rows: Sequence[Record]) -> Iterator[list[str]]:
    """Of steps, of differences, and of what a step consists of; those that have rows."""
    shares = [row for row in rows if "share" in row]
    steps = [row for row in rows if "video" in row]
    differences = [row for row in rows if "share" not in row and "video" not in row]
    if steps:
        yield [*STEPS, *map(line, steps)]
    if differences:
        yield [*DIFFERENCES, *map(difference_line, differences)]
    if shares:
        yield [*SHARES, *map(share_line, shares)]


def last_words(text: str) -> list[str]:
    """The end of what a part said, if it said anything."""
    said = text.strip().splitlines()[-12:]
    return ["Its last words:", "", "```", *said, "```"] if said else []


def planned(records: Iterable[Record]) -> Iterable[Record]:
    """A row without figures for each that a part meant to measure in a table of steps."""
    for record in records:
        if "video" in record:
            for row in record.get("planned", ()):
                yield {"row": row, "dtype": record["dtype"], "video": record["video"]}


def difference_line(row: Record) -> str:
    found = f"{row['difference']:.1e}" if "difference" in row else f"{NOT_MEASURED}: {short(row)}"
    return f"| {row['row']} | {found} |"


def share_line(row: Record) -> str:
    calls = row["calls"] or ""
    return f"| {row['row']} | {row['milliseconds']:.1f} | {row['share']:.0%} | {calls} |"


def line(row: Record) -> str:
    first = f" (first step: {row['first_seconds']:.0f} s)" if "first_seconds" in row else ""
    cells = [row["row"] + first, row.get("dtype", ""), row.get("video", "")]
    return f"| {' | '.join([*cells, *figures(row)])} |"


def figures(row: Record) -> list[str]:
    if "seconds" not in row:
        return [f"{NOT_MEASURED}{': ' * ('error' in row)}{short(row)}", "", "", "", ""]
    seconds, tflop = row["seconds"], row.get("flops", 0) / TERA
    return [
        f"{seconds:.4f}" if seconds < 0.1 else f"{seconds:.3f}",
        f"{tflop:.3g}" if tflop else "",
        f"{tflop / seconds:.0f}" if tflop else "",
        f"{row['mfu']:.0%}" if "mfu" in row else "",
        f"{row['peak_bytes'] / GIB:.2f} GiB" if "peak_bytes" in row else "",
    ]


def short(row: Record) -> str:
    """The first line of why a row failed."""
    lines = str(row.get("error", "")).strip().splitlines() or [""]
    return lines[0].replace("|", "/")[:200]


if __name__ == "__main__":
    main()

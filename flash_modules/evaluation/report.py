"""An evaluation as files: one HTML page that stands alone, and its numbers as CSV and JSON."""

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einops import rearrange
from torch import Tensor

from ..files.video_files import fit_picture
from ..files.whole import write_text
from .evaluate import Evaluation, Material
from .figure import strips
from .films import Film
from .measures import Measure
from .results import MethodResult, as_json, columns
from .web import animation, curve, page, table

_SHOWN = 24
"""Pictures whose videos are in the page; the numbers are of all."""
_SIDE = 192
"""Pixels of the short side of a video in the page."""

Curves = Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What a run's folder tells of a training."""

    name: str
    curves: Curves
    """Its tables by column: the loss, and the exam's errors."""
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a report tells beside the scores."""

    command: str
    judges: Sequence[str]
    runs: Sequence[RunFacts] = field(default=())


def write_report(path: Path, evaluation: Evaluation, material: Material, facts: Facts) -> list[Path]:
    """Write the page, and beside it the numbers; each file whole or not at all. What was written."""
    measures = columns(evaluation.results, evaluation.sets)
    written = {
        path: _page(evaluation, material, facts, measures),
        path.with_suffix(".csv"): _csv(evaluation.results, measures),
        path.with_suffix(".json"): _json(evaluation, facts),
    }
    for place, text in written.items():
        write_text(place, text)
    return list(written)


def summary(evaluation: Evaluation) -> str:
    """The table for a terminal, in Markdown."""
    measures = columns(evaluation.results, evaluation.sets)
    head = ["", *(measure.heading for measure in measures)]
    lines = [head, ["---"] * len(head)]
    lines += [[result.name, *_cells(result, measures)] for result in evaluation.results]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(result: MethodResult, measures: Sequence[Measure]) -> list[str]:
    scores = result.scores()
    return [scores[m.key].text(m.digits) if m.key in scores else "-" for m in measures]


def _csv(results: Sequence[MethodResult], measures: Sequence[Measure]) -> str:
    """A row for each video; sets' distances are in the JSON."""
    keys = [
        measure.key
        for measure in measures
        if any(measure.key in s for r in results for s in r.videos.values())
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "video", *keys])
    for result in results:
        for video, scores in result.videos.items():
            writer.writerow([_plain(result.name), _plain(video), *(scores.get(key, "") for key in keys)])
    return file.getvalue()


def _plain(name: str) -> str:
    """A name that no table program takes for a formula."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _json(evaluation: Evaluation, facts: Facts) -> str:
    content = {
        "command": facts.command,
        "judges": list(facts.judges),
        "notes": list(evaluation.notes),
        "methods": {result.name: as_json(result) for result in evaluation.results},
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _page(evaluation: Evaluation, material: Material, facts: Facts, measures: Sequence[Measure]) -> str:
    rows = {result.name: _cells(result, measures) for result in evaluation.results}
    meanings = {measure.heading: [measure.meaning] for measure in measures}
    parts = [
        "<p>Mean ± standard deviation over the videos, with their number n; a distance of sets is given ± "
        "its standard error by the jackknife. Compare distances of sets at equal n alone.</p>",
        table([measure.heading for measure in measures], rows),
        *(f"<p class=note>{html.escape(note)}</p>" for note in evaluation.notes),
        "<h2>Every video</h2>",
        strips(measures, evaluation.results),
        *_videos(material),
        *(part for run in facts.runs for part in _run(run)),
        "<h2>What the scores mean</h2>",
        table(["meaning"], meanings),
        f"<h2>Judges</h2><p>{html.escape('; '.join(facts.judges) or 'none')}</p>",
        f"<h2>Command</h2><pre>{html.escape(facts.command)}</pre>",
    ]
    return page("Evaluation", "".join(parts), columns=2 + len(material.methods))


def _videos(material: Material) -> Iterator[str]:
    names = sorted({name for films in material.methods.values() for name in films})
    yield "<h2>Side by side</h2>"
    if len(names) > _SHOWN:
        yield f"<p>The first {_SHOWN} of {len(names)}; the numbers are of all.</p>"
    for name in names[:_SHOWN]:
        prompt = material.prompts.get(name)
        yield f"<h3>{html.escape(name)}{f': {html.escape(prompt)}' if prompt else ''}</h3><div>"
        shown = [films[name] for films in material.methods.values() if name in films]
        if name in material.pictures:
            size = shown[0].footage.size
            yield animation(_small(fit_picture(material.pictures[name], size)), "the picture", 1.0)
        if name in material.truths:
            yield _film(material.truths[name], "true clip")
        for method, films in material.methods.items():
            if name in films:
                yield _film(films[name], method)
        yield "</div>"


def _film(film: Film, text: str) -> str:
    times = film.footage.times
    fps = (len(times) - 1) / (times[-1] - times[0])
    try:
        video_FCHW = film.read(range(min(len(times), 100)), _SIDE)
    except ValueError as error:
        return f"<p class=note>{html.escape(f'{text}: {error}')}</p>"
    return animation(rearrange(video_FCHW, "f c h w -> f h w c"), text, fps)


def _small(picture_1HWC: Tensor) -> Tensor:
    step = max(1, min(picture_1HWC.shape[1:3]) // _SIDE)
    return picture_1HWC[:, ::step, ::step]


def _run(run: RunFacts) -> Iterator[str]:
    yield f"<h2>Run {html.escape(run.name)}</h2><div>"
    for name, values in run.curves.items():
        if values:
            yield curve(
                values, f"{name}: {values[0]:.4g} to {values[-1]:.4g}, highest {max(values):.4g}", width=320
            )
    settings = html.escape(json.dumps(run.settings, indent=2, ensure_ascii=False))
    yield f"</div><details><summary>settings</summary><pre>{settings}</pre></details>"

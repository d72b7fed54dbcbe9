"""The one figure of a report: every score's videos, method by method, each score on a scale of its own."""

import html
from collections.abc import Sequence

from .measures import Measure
from .results import MethodResult

_LEFT, _WIDTH, _LINE = 230, 460, 20


def strips(measures: Sequence[Measure], results: Sequence[MethodResult]) -> str:
    """An SVG: for each score a line of dots (videos) and a bar (mean) for each method."""
    parts: list[str] = []
    y = 0
    for measure in measures:
        rows = _rows(measure.key, results)
        y += 2 * _LINE
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{html.escape(measure.heading)}</text>')
        values = [value for _, found in rows for value in found]
        low, high = min(values), max(values)
        parts.append(_scale(low, high, y, measure.digits))
        for name, found in rows:
            y += _LINE
            parts.append(f'<text x="8" y="{y}">{html.escape(name[:32])}</text>')
            parts += _dots(found, low, high, y - 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {y + _LINE}" '
        f'width="{_LEFT + _WIDTH + 20}" font-family="sans-serif" font-size="12" style="border:0" role="img" '
        f'aria-label="scores of all videos">{"".join(parts)}</svg>'
    )


def _rows(key: str, results: Sequence[MethodResult]) -> list[tuple[str, list[float]]]:
    """Names with the values of their videos, or with a set's one value."""
    rows = []
    for result in results:
        found = [scores[key] for scores in result.videos.values() if key in scores]
        if key in result.sets:
            found = [result.sets[key].value]
        if found:
            rows.append((result.name, found))
    return rows


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + 10 + (_WIDTH * (value - low) / (high - low) if high > low else _WIDTH / 2)


def _scale(low: float, high: float, y: float, digits: int) -> str:
    return (
        f'<text x="{_LEFT + 10}" y="{y}" fill="#666">{low:.{digits}f}</text>'
        f'<text x="{_LEFT + 10 + _WIDTH}" y="{y}" text-anchor="end" fill="#666">{high:.{digits}f}</text>'
    )


def _dots(values: Sequence[float], low: float, high: float, y: float) -> list[str]:
    dots = [
        f'<circle cx="{_x(value, low, high):.1f}" cy="{y}" r="3" fill="#69c" fill-opacity=".6"/>'
        for value in values
    ]
    mean = _x(sum(values) / len(values), low, high)
    return [
        f'<path d="M{_LEFT + 10} {y}h{_WIDTH}" stroke="#ddd"/>',
        *dots,
        f'<path d="M{mean:.1f} {y - 7}v14" stroke="#036" stroke-width="2"/>',
    ]

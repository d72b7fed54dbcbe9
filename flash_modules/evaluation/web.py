"""Parts of HTML pages that stand alone: each page is one file, with its pictures and videos inside."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from statistics import fmean

from torch import Tensor

from ..files.video_files import as_picture


def animation(video_FHWC: Tensor, text: str, fps: float) -> str:
    """A video in [0, 1] that plays for ever, over its text."""
    frames = [as_picture(frame_HWC) for frame_HWC in video_FHWC]
    file = io.BytesIO()
    frames[0].save(
        file, "webp", save_all=True, append_images=frames[1:], duration=1000 / fps, loop=0, quality=85
    )
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{html.escape(text)}">'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
    )


def table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table of rows, each with its name in front."""
    lines = [f"<tr><th>{html.escape(name)}{_cells('td', row)}</tr>" for name, row in rows.items()]
    return f"<table><tr><th>{_cells('th', head)}</tr>{''.join(lines)}</table>"


def _cells(kind: str, texts: Sequence[str]) -> str:
    return "".join(f"<{kind}>{html.escape(text)}" for text in texts)


def curve(values: Sequence[float], text: str, *, width: int = 640, height: int = 160) -> str:
    """Values as a line from left to right; 0 is at the bottom."""
    top, last = max(values), max(1, len(values) - 1)
    points = " ".join(
        f"{width * i / last:.1f},{height * (1 - value / top):.1f}" for i, value in enumerate(values)
    )
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{html.escape(text)}"><polyline points="{points}" fill="none" stroke="#36c"/></svg>'
        f"<figcaption>{html.escape(text)}</figcaption></figure>"
    )


def points(
    found: Mapping[str, Sequence[float]], lines: Mapping[str, float], text: str, *, width: int = 720
) -> str:
    """An SVG by itself: a column for each name, with its values, their mean, and named lines across all."""
    top = 1.1 * max(max(map(max, found.values())), *lines.values())
    height, left, step = 300, 40, (width - 200) / len(found)

    def y(value: float) -> float:
        return 20 + height * (1 - value / top)

    parts = [f'<text x="4" y="12">{html.escape(text)}</text>']
    for name, value in lines.items():
        parts.append(f'<path d="M{left} {y(value):.1f}H{width - 150}" stroke="#999" stroke-dasharray="4"/>')
        parts.append(f'<text x="{width - 145}" y="{y(value) + 4:.1f}">{html.escape(name)} {value:.1f}</text>')
    for i, (name, values) in enumerate(found.items()):
        x, mean = left + step * (i + 0.5), fmean(values)
        parts += [f'<circle cx="{x:.1f}" cy="{y(value):.1f}" r="2.5" fill="#9bd"/>' for value in values]
        parts.append(f'<path d="M{x - 12:.1f} {y(mean):.1f}h24" stroke="#036" stroke-width="3"/>')
        parts.append(f'<text x="{x + 14:.1f}" y="{y(mean) + 4:.1f}">{mean:.1f}</text>')
        parts.append(f'<text x="{x:.1f}" y="{height + 38}" text-anchor="middle">{html.escape(name)}</text>')
    axes = f'<path d="M{left} 20V{height + 20}H{width - 150}" fill="none" stroke="#000"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 50}" width="{width}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f"{axes}{''.join(parts)}</svg>\n"
    )


def page(title: str, body: str, *, columns: int) -> str:
    """A whole page; animations inside of a div stand in so many columns."""
    return _PAGE.format(title=html.escape(title), body=body, columns=columns)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }}
div {{ display: grid; grid-template-columns: repeat({columns}, 1fr); gap: 8px; }}
figure {{ margin: 0; }} img {{ width: 100%; }} figcaption {{ font-size: 11px; }}
svg {{ border-left: 1px solid; border-bottom: 1px solid; }}
table {{ border-collapse: collapse; }} td, th {{ padding: 2px 12px; text-align: left; }}
tr + tr {{ border-top: 1px solid #ccc; }} pre {{ overflow-x: auto; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""

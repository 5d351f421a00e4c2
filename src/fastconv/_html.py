"""Tables, text and small pictures as notebooks show them; every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

_LEFT, _RIGHT = "text-align:left", "text-align:right"
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
_WIDTH, _HEIGHT, _MARGIN, _HEAD = 320, 180, 44, 24


def table(
    caption: str, rows: Sequence[Sequence[str]], texts: int = 1, style: Callable[[int, int], str] | None = None
) -> str:
    """Return a table.

    Parameters
    ----------
    caption : str
    rows : sequence of rows of str
        The first is the heading.
    texts : int
        How many columns are flush left; figures are flush right.
    style : callable, optional
        From row (of the body) and column to more CSS of a cell.
    """

    def cells(row: Sequence[str], tag: str, number: int) -> str:
        return "".join(
            f'<{tag} style="{_LEFT if i < texts else _RIGHT}{";" + style(number, i) if style and tag == "td" else ""}">'
            f"{escape(str(cell))}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td', number)}</tr>" for number, row in enumerate(rows[1:]))
    head = f"<thead><tr>{cells(rows[0], 'th', -1)}</tr></thead>" if rows else ""
    title = f'<caption style="{_LEFT};caption-side:top">{escape(caption)}</caption>' if caption else ""
    return f"<table>{title}{head}<tbody>{body}</tbody></table>"


def text(value: str) -> str:
    """Return text as it is laid out."""
    return f"<pre>{escape(value)}</pre>"


def picture(title: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Return lines over 1, 2, ... as an SVG; numbers that are missing or not finite leave gaps.

    Parameters
    ----------
    title : str
    columns : mapping of str to sequence of numbers or None
        What each line is called, and its heights.
    """
    known = [v for values in columns.values() for v in values if _is_number(v)]
    if not known:
        return ""
    low, high = min(known), max(known)
    span = (high - low) or abs(high) or 1.0
    count = max(map(len, columns.values()))
    right, bottom = _WIDTH - 8, _HEIGHT - 20

    def place(i: int, value: float) -> str:
        x = _MARGIN + (right - _MARGIN) * (i / (count - 1) if count > 1 else 0.5)
        return f"{x:.1f},{bottom - (bottom - _HEAD) * (value - low) / span:.1f}"

    parts = [
        f'<rect x="{_MARGIN}" y="{_HEAD}" width="{right - _MARGIN}" height="{bottom - _HEAD}" fill="none" '
        'stroke="currentColor" stroke-opacity="0.25"/>',
        _words(_MARGIN, 14, title, "start"),
        _words(_MARGIN - 4, bottom, f"{low:.3g}", "end"),
        _words(_MARGIN - 4, _HEAD + 8, f"{high:.3g}", "end"),
        _words(_MARGIN, _HEIGHT - 6, "1", "start"),
        _words(right, _HEIGHT - 6, str(count), "end"),
    ]
    for number, (name, values) in enumerate(columns.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        for stretch in _stretches(values):
            points = " ".join(place(i, float(values[i])) for i in stretch)
            if len(stretch) == 1:
                x, y = points.split(",")
                parts.append(f'<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/>')
            else:
                parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_words(right - 80 * number, 14, name, "end", colour))
    label = escape(f"{title}: {', '.join(columns)}", quote=True)
    return (
        f'<svg role="img" aria-label="{label}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" style="max-width:100%">{"".join(parts)}</svg>'
    )


def _words(x: float, y: float, words: str, anchor: str, colour: str = "currentColor") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="11" fill="{colour}">{escape(words)}</text>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _stretches(values: Sequence[Any]) -> list[list[int]]:
    """Return the runs of places that hold numbers."""
    found: list[list[int]] = [[]]
    for i, value in enumerate(values):
        if _is_number(value):
            found[-1].append(i)
        elif found[-1]:
            found.append([])
    return [stretch for stretch in found if stretch]

"""The plot of docs/bench.md: one row a library, one mark a case, on a logarithmic axis. Written as SVG by hand."""

# ruff: noqa: RUF001 (it is the sign of multiplication)

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import harness

PATH: Final[Path] = harness.DOCUMENT.with_suffix(".svg")

_LEFT: Final = 175
_RIGHT: Final = 30
_WIDTH: Final = 820
_TOP: Final = 86
_ROW: Final = 32
_LEGEND: Final = {
    "read": ("read, times the SELECT", "#0b6e99"),
    "write": ("read and write, times SELECT + UPDATE", "#c2410c"),
    "change_big": ("one key of 100 KB, times SELECT + UPDATE", "#4d7c0f"),
}
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#1f2937}.small{font-size:11px;fill:#4b5563}"
    ".title{font-weight:600;font-size:15px}"
)


def write(rows: list[tuple[str, dict[str, float]]]) -> None:
    """Write the plot of the ratios in *rows*, by library and case."""
    PATH.write_text(draw(rows), encoding="utf-8")


def draw(rows: list[tuple[str, dict[str, float]]]) -> str:
    """Give the plot as the text of an SVG file."""
    most = max(ratio for _, ratios in rows for ratio in ratios.values())
    decades = max(1, math.ceil(math.log10(most)))
    bottom = _TOP + _ROW * len(rows)

    def across(ratio: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * max(0.0, math.log10(max(ratio, 1.0))) / decades

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 50}" role="img">',
        "<title>Time that sessions on SQLite add to a request, in multiples of the raw statements</title>",
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        '<text class="title" x="16" y="26">Time that sessions on SQLite add to a request (less is better)</text>',
    ]
    start = 16
    for number, (text, colour) in enumerate(_LEGEND.values()):
        parts.append(_mark(number, start + 6, 50, colour))
        parts.append(f'<text class="small" x="{start + 18}" y="54">{text}</text>')
        start += 40 + round(len(text) * 6.1)
    for decade in range(decades + 1):
        x = across(10**decade)
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP - 10}" x2="{x:.1f}" y2="{bottom}" stroke="#d1d5db"/>')
        parts.append(f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{bottom + 16}">{10**decade:,}×</text>')
    for place, (label, ratios) in enumerate(rows):
        y = _TOP + _ROW * place + _ROW / 2 - 5
        weight = ' font-weight="600"' if label == "coatcheck" else ""
        xs = [across(ratio) for ratio in ratios.values()]
        parts.append(f'<text text-anchor="end" x="{_LEFT - 14}" y="{y + 4:.1f}"{weight}>{label}</text>')
        parts.append(f'<line x1="{min(xs):.1f}" y1="{y}" x2="{max(xs):.1f}" y2="{y}" stroke="#9ca3af"/>')
        parts += [
            _mark(number, across(ratios[case]), y, colour) for number, (case, (_, colour)) in enumerate(_LEGEND.items())
        ]
    axis = "multiple of the raw sqlite3 statements of the same run, logarithmic"
    parts.append(f'<text class="small" text-anchor="middle" x="{(_LEFT + _WIDTH) / 2}" y="{bottom + 38}">{axis}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _mark(number: int, x: float, y: float, colour: str) -> str:
    """Draw a circle, a square or a diamond, so that colour is not all that tells the cases apart."""
    if number == 0:
        return f'<circle cx="{x:.1f}" cy="{y}" r="5.5" fill="{colour}"/>'
    turn = f' transform="rotate(45 {x:.1f} {y})"' if number > 1 else ""
    return f'<rect x="{x - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{colour}"{turn}/>'

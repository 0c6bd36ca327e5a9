"""Curves of sensitivity as one SVG: a panel for the input and one for each tower, with bands of 95 percent."""

import html
from collections.abc import Sequence
from typing import Protocol

PANEL, HEIGHT, LEFT, TOP, BOTTOM = 360, 260, 58, 40, 44
"""Width and height of a panel, and its margins, in pixels."""
COLOURS = {"tokens": "#2563c9", "mixer": "#2563c9", "cross": "#2f7d46", "feed_forward": "#b8500a"}
"""Colour of each part, the same in every panel."""


class BandPoint(Protocol):
    """Point of a curve, with an interval."""

    @property
    def curve(self) -> str: ...
    @property
    def x(self) -> float: ...
    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def draw_curves(points: Sequence[BandPoint]) -> str:
    """Return the curves, grouped by the first word of their names."""
    panels: dict[str, dict[str, list[BandPoint]]] = {}
    for point in points:
        panels.setdefault(point.curve.split()[0], {}).setdefault(point.curve, []).append(point)
    width = PANEL * max(1, len(panels))
    body = [_panel(name, curves, PANEL * i) for i, (name, curves) in enumerate(panels.items())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="#1d2430"><title>Fall of the log-probability, in nats</title>'
        f'<rect width="{width}" height="{HEIGHT}" fill="#fff"/>{"".join(body)}</svg>\n'
    )


def _panel(name: str, curves: dict[str, list[BandPoint]], left: float) -> str:
    every = [point for points in curves.values() for point in points]
    low, high = min(0.0, *(p.low for p in every)), max(*(p.high for p in every), 1e-9)
    first, last = min(p.x for p in every), max(p.x for p in every)

    def x(value: float) -> float:
        return left + LEFT + (PANEL - LEFT - 16) * ((value - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<text x="{left + LEFT}" y="16" font-weight="700">{html.escape(name)}</text>',
        f'<text transform="translate({left + 14} {HEIGHT / 2}) rotate(-90)" text-anchor="middle">fall, nats</text>',
        f'<line x1="{left + LEFT}" x2="{left + PANEL - 16}" y1="{y(0):.1f}" y2="{y(0):.1f}" stroke="#ccc"/>',
        f'<text x="{left + LEFT - 6}" y="{y(high) + 4:.1f}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left + LEFT - 6}" y="{y(low) + 4:.1f}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left + (PANEL + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{'place in the input' if name == 'input' else 'layer'}</text>",
        f'<text x="{x(first):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{first:g}</text>',
        f'<text x="{x(last):.1f}" y="{HEIGHT - 24}" text-anchor="middle">{last:g}</text>',
    ]
    for i, (curve, points) in enumerate(curves.items()):
        colour = COLOURS.get(curve.split(" ", 1)[1], "#1d2430")
        band = [*((p.x, p.high) for p in points), *((p.x, p.low) for p in reversed(points))]
        parts.append(f'<polygon points="{_joined(band, x, y)}" fill="{colour}" fill-opacity="0.18"/>')
        line = _joined([(p.x, p.mean) for p in points], x, y)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(p.x):.1f}" cy="{y(p.mean):.1f}" r="2.5" fill="{colour}"/>' for p in points]
        label = html.escape(curve.split(" ", 1)[1])
        parts.append(f'<text x="{left + LEFT + 96 * i}" y="32" fill="{colour}">{label}</text>')
    return "".join(parts)


def _joined(points, x, y) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)

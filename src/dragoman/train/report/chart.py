"""Line chart as inline SVG: drawn without a script, and without files from elsewhere.

Colours come from the page (``.line-0`` to ``.line-3``, ``.grid``, ``.label``), so that it can be light or dark.
"""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

COLOURS = 4
"""Maximum number of lines in a chart: the page has no more colours."""
WIDTH, HEIGHT = 560, 256
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 12, 42
Number = float | int
POINTS = 400
"""Maximum number of points in a line; more are averaged, since a screen cannot show them."""
_FLAT, _NOTHING = 1e-6, 1e-30
"""Values that differ by less, relative to their size or at all, are drawn as equal: no tick could tell them apart."""


@dataclass(frozen=True)
class ChartLine:
    """Points of a line and its name."""

    name: str
    x: Sequence[int]
    y: Sequence[Number]
    dots: bool = False
    """Mark the points, where they are few."""


def draw(title: str, lines: Sequence[ChartLine], *, axis: str = "", from_zero: bool = False) -> str:
    """Draw values over steps as a ``figure`` with title and legend, or a note where there is nothing to draw yet.

    ``axis`` names the values; without it the title does.
    """
    thin = [_thin(line) for line in lines if line.x]
    name = html.escape(title)
    if not thin:
        return f'<figure class="chart"><figcaption>{name}</figcaption><p class="empty">nothing yet</p></figure>'
    x_ticks = round_ticks(0, max(1, *(max(line.x) for line in thin)), 5)
    values = [y for line in thin for y in line.y]
    y_ticks = round_ticks(*usual_span([0.0, *values] if from_zero else values), 4)
    scale = _Scale(x_ticks[-1], y_ticks[0], y_ticks[-1])
    body = [
        _grid(scale, x_ticks, y_ticks),
        _axes(axis or title),
        *(_path(scale, line, i) for i, line in enumerate(thin)),
    ]
    points = [{"name": line.name, "x": list(line.x), "y": [float(f"{y:.4g}") for y in line.y]} for line in thin]
    frame = {
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
        "most": x_ticks[-1],
    }
    keys = [f'<span><i class="key-{i}"></i>{html.escape(line.name)}</span>' for i, line in enumerate(thin)]
    legend = "".join(keys) if len(keys) > 1 else ""
    return (
        f'<figure class="chart"><figcaption>{name}<span class="legend">{legend}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}" '
        f"data-points='{_attribute(points)}' data-frame='{_attribute(frame)}'>"
        f"{''.join(body)}</svg></figure>"
    )


def _attribute(value: object) -> str:
    return html.escape(json.dumps(value, separators=(",", ":")))


@dataclass(frozen=True)
class _Scale:
    x_most: Number
    y_least: Number
    y_most: Number

    def x(self, value: Number) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.x_most

    def y(self, value: Number) -> float:
        share = (value - self.y_least) / (self.y_most - self.y_least)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _thin(line: ChartLine) -> ChartLine:
    size = math.ceil(len(line.x) / POINTS)
    if size == 1:
        return line
    starts = range(0, len(line.x), size)
    y = [sum(part := line.y[i : i + size]) / len(part) for i in starts]
    return ChartLine(line.name, [line.x[min(i + size, len(line.x)) - 1] for i in starts], y, line.dots)


def usual_span(values: Sequence[Number]) -> tuple[Number, Number]:
    """Return the range from the least to nearly the greatest value: a few outliers must not flatten the rest."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    usual = ordered[math.floor(0.98 * (len(ordered) - 1))]
    if high - low > 4 * (usual - low) > 0:
        high = low + 1.5 * (usual - low)
    size = max(abs(low), abs(high))
    if high - low > max(_FLAT * size, _NOTHING):
        return low, high
    return low - (size if size > _NOTHING else 1) / 2, high + (size if size > _NOTHING else 1) / 2


def round_ticks(low: Number, high: Number, count: int) -> list[Number]:
    """Return ``count`` to twice as many round numbers, from below ``low`` to above ``high``."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]  # 0.3, not 0.30000000000000004


def _grid(scale: _Scale, x_ticks: Sequence[Number], y_ticks: Sequence[Number]) -> str:
    parts = []
    for y in y_ticks:
        at = f"{scale.y(y):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="label" x="{LEFT - 8}" y="{at}" dy="0.35em" text-anchor="end">{short(y)}</text>')
    for x in x_ticks:
        at = f"{scale.x(x):.1f}"
        parts.append(f'<text class="label" x="{at}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(x)}</text>')
    return "".join(parts)


def _axes(name: str) -> str:
    x, y = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    upright = f"translate(14 {y:g}) rotate(-90)"
    return (
        f'<text class="axis" x="{x:g}" y="{HEIGHT - 6}" text-anchor="middle">step</text>'
        f'<text class="axis" transform="{upright}" text-anchor="middle">{html.escape(name)}</text>'
    )


def _path(scale: _Scale, line: ChartLine, number: int) -> str:
    places = [(f"{scale.x(x):.1f}", f"{scale.y(y):.1f}") for x, y in zip(line.x, line.y, strict=True)]
    path = f'<polyline class="line-{number}" points="{" ".join(f"{x},{y}" for x, y in places)}"/>'
    if not line.dots or len(places) > 60:
        return path
    return path + "".join(f'<circle class="dot-{number}" cx="{x}" cy="{y}" r="2.5"/>' for x, y in places)


def short(value: Number) -> str:
    """Format a number in a few characters: 12k, 0.85, 5e-4."""
    if value and abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"

"""Charts of studies as inline SVG and tables: drawn without a script, and without files from elsewhere.

Contestants differ by colour, by dashes and by the shape of their marks, so that no reader needs to tell colours apart.
Colours come from the page (``.c0`` to ``.c6``), so that it can be light or dark.
"""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.compare.verdicts import decimals
from dragoman.train.report.chart import round_ticks, short, usual_span

COLOURS = 7
DASHES = ("", "7 4", "2 3", "10 3 2 3")
WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 18, 14, 52
_LOGARITHMIC = 20.0
"""Ratio of the largest to the smallest place from which places are spaced by their logarithm."""
Place = str | float


@dataclass(frozen=True)
class Series:
    """Values of one contestant at several places."""

    name: str
    number: int
    """Position among the contestants, which decides colour, dashes and marks."""
    x: Sequence[Place]
    y: Sequence[float | None]


def curve_chart(title: str, series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Return a ``figure`` with the lines of contestants, a legend, and the same numbers as a table below."""
    points = [(x, y) for one in series for x, y in zip(one.x, one.y, strict=True) if y is not None]
    if not points:
        return ""
    axis = _Across(list(dict.fromkeys(x for one in series for x in one.x)))
    up = round_ticks(*usual_span([y for _, y in points]), 4)
    body = [_grid(axis, up, x_title, y_title), *(_line(one, axis, up) for one in series)]
    legend = "".join(f"<span>{key(one.number)}{html.escape(one.name)}</span>" for one in series)
    name = html.escape(title)
    return (
        f'<figure class="chart"><figcaption>{name}</figcaption><div class="legend">{legend}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(body)}</svg>'
        f"<details><summary>Table</summary>{_table(series, axis.places, x_title)}</details></figure>"
    )


def key(number: int) -> str:
    """Return the mark of a contestant for legends and tables."""
    line = f'<line class="line c{number % COLOURS}" x1="0" y1="7" x2="30" y2="7" stroke-dasharray="{_dash(number)}"/>'
    return f'<svg class="key" viewBox="0 0 30 14" aria-hidden="true">{line}{_mark(number, 15, 7)}</svg>'


def _dash(number: int) -> str:
    return DASHES[number // COLOURS % len(DASHES)] if number >= COLOURS else DASHES[number % 2]


class _Across:
    """Horizontal axis: numbers, spaced by their logarithm where they span much; or names, evenly spaced."""

    def __init__(self, places: list[Place]):
        self.numbers = all(isinstance(x, int | float) for x in places)
        self.places = sorted(places, key=float) if self.numbers else places
        self.low, self.high = (float(self.places[0]), float(self.places[-1])) if self.numbers else (0.0, 0.0)
        self.logarithmic = self.numbers and self.low > 0 and self.high / self.low >= _LOGARITHMIC and len(places) < 15

    def at(self, place: Place) -> float:
        """Return where a place is, in the units of the picture."""
        share = 0.5
        if not self.numbers:
            share = (self.places.index(place) + 0.5) / len(self.places)
        elif self.logarithmic:
            share = math.log(float(place) / self.low) / math.log(self.high / self.low)
        elif self.high > self.low:
            share = (float(place) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[tuple[float, str]]:
        """Return where to write what."""
        if self.numbers and not self.logarithmic and len(self.places) > 8 and self.high > self.low:
            at = [x for x in round_ticks(self.low, self.high, 5) if self.low <= x <= self.high]
            return [(self.at(x), short(x)) for x in at]
        step = math.ceil(len(self.places) / 8)
        return [(self.at(x), x if isinstance(x, str) else short(x)) for x in self.places[::step]]


def _height(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _grid(axis: _Across, up: Sequence[float], x_title: str, y_title: str) -> str:
    parts = []
    for y in up:
        at = f"{_height(y, up):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="label" x="{LEFT - 8}" y="{at}" dy="0.35em" text-anchor="end">{short(y)}</text>')
    for x, text in axis.ticks():
        parts.append(
            f'<text class="label" x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
            f"{html.escape(text)}</text>"
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    across = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{across}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_title)}</text>'
        f'<text class="label" transform="translate(15 {middle}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_title)}</text>"
    )
    return "".join(parts)


def _line(one: Series, axis: _Across, up: Sequence[float]) -> str:
    places = [(axis.at(x), _height(y, up)) for x, y in zip(one.x, one.y, strict=True) if y is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = f' stroke-dasharray="{_dash(one.number)}"' if _dash(one.number) else ""
    every = math.ceil(len(places) / 12) or 1
    marks = "".join(_mark(one.number, x, y) for x, y in places[::every])
    line = f'<polyline class="line c{one.number % COLOURS}" points="{path}"{dash}/>'
    return f"<g><title>{html.escape(one.name)}</title>{line}{marks}</g>"


def _mark(number: int, x: float, y: float) -> str:
    """Return a circle, square, triangle, diamond or cross around a point."""
    shapes: tuple[Callable[[], str], ...] = (
        lambda: f'<circle class="mark c{number % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"/>',
        lambda: f'<rect class="mark c{number % COLOURS}" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>',
        lambda: _polygon(number, [(x, y - 4), (x + 4, y + 3), (x - 4, y + 3)]),
        lambda: _polygon(number, [(x, y - 4.5), (x + 4.5, y), (x, y + 4.5), (x - 4.5, y)]),
        lambda: _polygon(number, [(x - 4, y - 3), (x + 4, y - 3), (x, y + 4)]),
    )
    return shapes[number % len(shapes)]()


def _polygon(number: int, corners: Sequence[tuple[float, float]]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon class="mark c{number % COLOURS}" points="{points}"/>'


def _table(series: Sequence[Series], places: Sequence[Place], x_title: str) -> str:
    shown = places if len(places) <= 24 else places[:: math.ceil(len(places) / 24)]
    head = "".join(f"<th>{html.escape(one.name)}</th>" for one in series)
    known = [dict(zip(one.x, one.y, strict=True)) for one in series]
    rows = "".join(
        f"<tr><th>{html.escape(x) if isinstance(x, str) else number(x)}</th>"
        + "".join(f"<td>{'' if (y := values.get(x)) is None else number(y)}</td>" for values in known)
        + "</tr>"
        for x in shown
    )
    return f'<div class="wide"><table><tr><th>{html.escape(x_title)}</th>{head}</tr>{rows}</table></div>'


# ---- values with intervals --------------------------------------------------------------------------


def interval_table(values: Mapping[str, Mapping[str, Any]], numbers: Mapping[str, int], unit: str) -> str:
    """Return a table of means with their intervals, each drawn in its row: whiskers, mean, and single seeds."""
    ends = [_ends(one) for one in values.values()]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    halves = [(one["high"] - one["low"]) / 2 for one in values.values() if one["low"] is not None]
    digits = decimals(max(halves) / 10) if any(halves) else None
    drawn = not any("unit" in one for one in values.values())  # or they are not on one scale
    rows = []
    for name, one in values.items():
        text, between = _rounded(one["mean"], digits), ""
        if one["low"] is not None:
            between = " to ".join(_rounded(one[end], digits) for end in ("low", "high"))
        bar = _bar(one, numbers[name], low, high) if drawn else ""
        of = f" {html.escape(one['unit'])}" if one.get("unit") else ""
        rows.append(
            f"<tr><th>{key(numbers[name])}{html.escape(name)}</th><td><b>{text}</b>{of}</td><td>{between}</td>"
            f'<td class="bar">{bar}</td></tr>'
        )
    scale = f"<span>{number(low)}</span><span>{number(high)} {html.escape(unit)}</span>" if drawn else ""
    head = f'<tr><th></th><th>mean</th><th>95% interval</th><th class="bar"><div class="ends">{scale}</div></th></tr>'
    return f'<div class="wide"><table class="figures">{head}{"".join(rows)}</table></div>'


def _rounded(value: float, digits: int | None) -> str:
    return number(value) if digits is None else f"{value:,.{digits}f}"


def _ends(one: Mapping[str, Any]) -> tuple[float, float]:
    known = [*one["each"], *(one[end] for end in ("low", "high") if one[end] is not None)]
    return min(known), max(known)


def _bar(one: Mapping[str, Any], place: int, low: float, high: float) -> str:
    def at(value: float) -> float:
        return 8 + 224 * ((value - low) / (high - low) if high > low else 0.5)

    parts = ['<line class="grid" x1="8" x2="232" y1="10" y2="10"/>']
    if one["low"] is not None:
        left, right = at(one["low"]), at(one["high"])
        parts.append(f'<line class="line c{place % COLOURS}" x1="{left:.1f}" x2="{right:.1f}" y1="10" y2="10"/>')
        parts += [
            f'<line class="line c{place % COLOURS}" x1="{x:.1f}" x2="{x:.1f}" y1="5" y2="15"/>' for x in (left, right)
        ]
    parts += [f'<circle class="seed" cx="{at(value):.1f}" cy="10" r="1.6"/>' for value in one["each"]]
    parts.append(_mark(place, at(one["mean"]), 10))
    return f'<svg viewBox="0 0 240 20" role="img" aria-label="{number(one["mean"])}">{"".join(parts)}</svg>'


def number(value: float) -> str:
    """Return a number with four digits: 0.1234, 12.34, 1,234, 1.234e+09."""
    if value != value or math.isinf(value):
        return "-"
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    if 1e-3 <= abs(value) < 1e7:
        return f"{value:,.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return f"{value:.3g}"

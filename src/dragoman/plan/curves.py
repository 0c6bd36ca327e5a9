"""Curves as a self-contained SVG document, light or dark as the reader's page is."""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 190, 40, 52
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Strokes that tell more curves apart than there are colours, and all of them without colours."""
STYLE = """
svg { background: #fff; color: #1f2937; font: 13px system-ui, sans-serif }
.grid { stroke: currentColor; stroke-opacity: .14 }
text { fill: currentColor }
@media (prefers-color-scheme: dark) { svg { background: #111827; color: #e5e7eb } }
"""


@dataclass(frozen=True)
class Curve:
    """Points joined by a line, or dots that are not joined."""

    name: str
    """Name in the legend; empty for none."""
    points: Sequence[tuple[float, float]]
    dots: bool = False
    colour: int | None = None
    """Index of its colour, for dots that belong to a line; None for the next one."""


def draw_curves(
    title: str,
    x_title: str,
    y_title: str,
    curves: Sequence[Curve],
    *,
    log_x: bool = True,
    log_y: bool = False,
) -> str:
    """Return an SVG document with these curves, axes, a grid and a legend."""
    across = _Axis([x for curve in curves for x, _ in curve.points], LEFT, WIDTH - RIGHT, log=log_x)
    up = _Axis([y for curve in curves for _, y in curve.points], HEIGHT - BOTTOM, TOP, log=log_y)
    body = [
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">{html.escape(title)}</text>',
        *(_vertical(across.at(tick), label) for tick, label in across.ticks()),
        *(_horizontal(up.at(tick), label) for tick, label in up.ticks()),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{html.escape(x_title)}</text>',
        f'<text transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{html.escape(y_title)}</text>",
    ]
    named = 0
    for i, curve in enumerate(curves):
        number = i if curve.colour is None else curve.colour
        body += _drawn(curve, number, across.at, up.at)
        if curve.name:
            body += _key(curve, number, TOP + 14 + 20 * named)
            named += 1
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{html.escape(title)}"><style>{STYLE}</style>{"".join(body)}</svg>\n'
    )


class _Axis:
    def __init__(self, values: Iterable[float], first: float, last: float, *, log: bool):
        kept = [value for value in values if not log or value > 0] or [1.0]
        self.log, self.first, self.last = log, first, last
        self.low, self.high = (self._scaled(edge(kept)) for edge in (min, max))
        if not log:
            margin = (self.high - self.low or abs(self.high) or 1.0) * 0.05
            self.low, self.high = self.low - margin, self.high + margin
        elif self.high - self.low < 1e-9:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def at(self, value: float) -> float:
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self) -> list[tuple[float, str]]:
        if self.log and self.high - self.low > 1.2:
            every = max(1, math.ceil((self.high - self.low) / 8))
            powers = range(math.ceil(self.low), math.floor(self.high) + 1, every)
            return [(10.0**power, _label(10.0**power)) for power in powers]
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        size = 10 ** math.floor(math.log10((high - low) / 4))
        step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (size * factor) <= 6)
        first = math.ceil(low / step)
        return [(i * step, _label(i * step)) for i in range(first, math.floor(high / step) + 1) if i or not self.log]


def _label(value: float) -> str:
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if 1e15 > abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def _vertical(x: float, label: str) -> str:
    bottom = HEIGHT - BOTTOM
    line = f'<line class="grid" x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}"/>'
    return f'{line}<text x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>'


def _horizontal(y: float, label: str) -> str:
    line = f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
    return f'{line}<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>'


def _style(number: int) -> str:
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _drawn(curve: Curve, number: int, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    if curve.dots:
        fill = COLOURS[number % len(COLOURS)]
        return [f'<circle cx="{x(a)}" cy="{y(b)}" r="4" fill="{fill}"/>' for a, b in curve.points]
    path = " ".join(f"{x(a)},{y(b)}" for a, b in curve.points)
    return [f'<polyline points="{path}" fill="none" stroke-width="2" {_style(number)}/>']


def _key(curve: Curve, number: int, y: float) -> list[str]:
    x = WIDTH - RIGHT + 14
    mark = (
        f'<circle cx="{x + 11}" cy="{y - 4}" r="4" fill="{COLOURS[number % len(COLOURS)]}"/>'
        if curve.dots
        else f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke-width="2" {_style(number)}/>'
    )
    return [mark, f'<text x="{x + 30}" y="{y}">{html.escape(curve.name)}</text>']

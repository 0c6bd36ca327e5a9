"""Line chart as an SVG file that stands alone, in light and dark."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 84, 34, 56, 64
COLOURS = ("#2563eb", "#d97706", "#059669", "#be185d", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
FEW = 12
"""Points of a line up to which each is marked."""
Point = tuple[float, float]
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}.title{font-size:16px;font-weight:600}.grid{stroke:#ddd}"
    ".back{fill:#fff}@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}.back{fill:#1b1b1b}}"
)


@dataclass(frozen=True)
class Axis:
    """One axis."""

    name: str
    text: Callable[[float], str] = "{:g}".format
    """Writes a tick's value."""
    logarithmic: bool = True

    def place(self, value: float, span: tuple[float, float]) -> float:
        """Return where a value is between the ends of the axis, from 0 to 1."""
        if self.logarithmic:
            value, low, high = math.log(value), *map(math.log, span)
        else:
            low, high = span
        return 0.5 if high == low else (value - low) / (high - low)

    def span(self, values: Sequence[float]) -> tuple[float, float]:
        """Return the ends of the axis."""
        low, high = min(values), max(values)
        return (low, high) if self.logarithmic else (min(0.0, low), high)

    def ticks(self, span: tuple[float, float]) -> list[float]:
        """Return five values or fewer to write, evenly spaced."""
        low, high = span
        if low == high:
            return [low]
        if self.logarithmic:
            return [low * (high / low) ** (i / 4) for i in range(5)]
        return [low + (high - low) * i / 4 for i in range(5)]


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    x: Axis,
    y: Axis,
    *,
    marks: Mapping[str, float] = {},
    scattered: Mapping[str, Sequence[Point]] = {},
) -> str:
    """Return the SVG text of a chart.

    Args:
        title: what it shows.
        lines: points of each line by its name.
        x: horizontal axis.
        y: vertical axis.
        marks: heights of horizontal lines by their names, such as a device's memory.
        scattered: points that are not joined, by the name of the line whose colour they have.

    Raises:
        ValueError: there is no point.
    """
    points = [point for line in [*lines.values(), *scattered.values()] for point in line]
    if not points:
        raise ValueError("there is nothing to draw")
    spans = x.span([a for a, _ in points]), y.span([b for _, b in points] + list(marks.values()))

    def place(a: float, b: float) -> tuple[float, float]:
        across, up = x.place(a, spans[0]), y.place(b, spans[1])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{html.escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="24">{html.escape(title)}</text>',
        *_ticks(x, y, spans, place),
    ]
    for i, (name, line) in enumerate(lines.items()):
        parts += _line(
            name, [place(*point) for point in line], COLOURS[i % len(COLOURS)], LEFT + 150 * (i % 4), 44 + 14 * (i // 4)
        )
        parts += [_dot(place(*point), COLOURS[i % len(COLOURS)], 4) for point in scattered.get(name, ())]
    for name, value in marks.items():
        height = place(points[0][0], value)[1]
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="#888"'
            f' stroke-dasharray="5 4"/><text x="{WIDTH - RIGHT}" y="{height - 5:.1f}" text-anchor="end">'
            f"{html.escape(name)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ticks(
    x: Axis, y: Axis, spans: tuple[tuple[float, float], tuple[float, float]], place: Callable[..., Point]
) -> list[str]:
    (left, _), (low, _) = spans
    parts = []
    for value in x.ticks(spans[0]):
        across = place(value, low)[0]
        parts.append(
            f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">'
            f"{html.escape(x.text(value))}</text>"
        )
    for value in y.ticks(spans[1]):
        up = place(left, value)[1]
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>'
            f'<text x="{LEFT - 8}" y="{up + 4:.1f}" text-anchor="end">{html.escape(y.text(value))}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 18}" text-anchor="middle">{html.escape(x.name)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{html.escape(y.name)}</text>"
    )
    return parts


def _dot(point: Point, colour: str, radius: int) -> str:
    return f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{radius}" fill="{colour}"/>'


def _line(name: str, points: Sequence[Point], colour: str, left: float, top: float) -> list[str]:
    path = " ".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(points))
    dots = "".join(_dot(point, colour, 3) for point in points) if len(points) <= FEW else ""
    return [
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}',
        f'<rect x="{left}" y="{top - 8}" width="12" height="8" fill="{colour}"/>'
        f'<text x="{left + 17}" y="{top}">{html.escape(name)}</text>',
    ]

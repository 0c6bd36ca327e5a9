"""Heat map as SVG: rows of cells with a number each, in panels whose columns differ; it needs no other file."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CELL, HEIGHT, LABEL, GAP = 46, 20, 230, 34
"""Sizes in pixels: width and height of a cell, width of the row labels, height of a panel's heading."""


@dataclass(frozen=True)
class Panel:
    """Rows that share their columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]
    """Label and values of each row: 1 is darkest, 0 is white, negative values are red."""


def heatmap_svg(title: str, about: str, panels: Sequence[Panel]) -> str:
    """Return an SVG document with a title and a description that screen readers read aloud."""
    columns = max((len(panel.columns) for panel in panels), default=0)
    width = max(LABEL + CELL * columns + 12, 16 + 6 * len(about))  # about the width of a letter
    parts, top = [], 44
    for panel in panels:
        drawn, top = _panel(panel, top)
        parts += drawn
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + 8}" width="{width}" height="{top + 8}" '
        'role="img" font-family="sans-serif" font-size="11">'
        f"<title>{_safe(title)}</title><desc>{_safe(about)}</desc>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="8" y="18" font-size="14" fill="#111111">{_safe(title)}</text>'
        f'<text x="8" y="34" fill="#444444">{_safe(about)}</text>'
    )
    return head + "".join(parts) + "</svg>\n"


def _panel(panel: Panel, top: int) -> tuple[list[str], int]:
    parts = [f'<text x="8" y="{top + 26}" font-weight="bold" fill="#111111">{_safe(panel.title)}</text>']
    for i, label in enumerate(panel.columns):
        x = LABEL + CELL * i + CELL / 2
        parts.append(f'<text x="{x}" y="{top + 26}" text-anchor="middle" fill="#111111">{_safe(label[:8])}</text>')
    top += GAP
    for label, values in panel.rows:
        parts.append(f'<text x="{LABEL - 8}" y="{top + 14}" text-anchor="end" fill="#111111">{_safe(label)}</text>')
        parts += [_cell(value, LABEL + CELL * i, top) for i, value in enumerate(values)]
        top += HEIGHT
    return parts, top + 6


def _cell(value: float, x: int, y: int) -> str:
    strength = min(1.0, abs(value)) if value == value else 0.0
    far = (178, 24, 43) if value < 0 else (33, 86, 165)
    red, green, blue = (round(255 + (end - 255) * strength) for end in far)
    ink = "#ffffff" if strength > 0.8 else "#111111"  # both have a contrast of more than 4 there
    number = f"{round(value, 2) + 0.0:.2f}" if value == value else ""
    return (
        f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{HEIGHT - 2}" fill="#{red:02x}{green:02x}{blue:02x}"/>'
        f'<text x="{x + CELL / 2 - 1}" y="{y + 13}" text-anchor="middle" fill="{ink}">{number}</text>'
    )


def _safe(text: str) -> str:
    """Return text without characters that XML forbids, escaped."""
    return escape(
        "".join(c if c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff" else "·" for c in text)
    )

"""Figure of one answer, for papers and slides: the last attention to the input, and the occlusion of each input.

What is drawn is a list of rectangles and texts, which become SVG, or a PNG of twice the size.
"""

import html
import io
from typing import NamedTuple

import numpy as np

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.page.collect import PageData

CELL, GAP, LETTER = 18, 24, 7.2
"""Sides of a cell, space between parts, and width of a letter, in pixels."""
LARGEST_SIDE = 8000
"""Most pixels of a side, before a PNG doubles them."""
WHITE, BLUE, ORANGE, INK = (255, 255, 255), (37, 99, 201), (184, 80, 10), (29, 36, 48)

Colour = tuple[int, int, int]


class Rectangle(NamedTuple):
    """Filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: Colour


class Label(NamedTuple):
    """Text that begins, or with ``end`` ends, at a point; with ``upright`` it goes upwards."""

    x: float
    y: float
    text: str
    end: bool = False
    upright: bool = False


class Drawing(NamedTuple):
    """Rectangles and labels in a frame."""

    width: int
    height: int
    parts: list[Rectangle | Label]


def draw_figure(data: PageData) -> Drawing:
    """Return the figure: rows are tokens of the answer, columns inputs; bars below show what each input is worth.

    Raises:
        DataError: nothing to draw, or too much.
    """
    if not data["attention"] and "attribution" not in data:
        raise DataError(
            "figure: this model has no attention, and no attribution was asked for: there is nothing to draw"
        )
    kind = next((one for one in data["attention"] if one["crossing"]), (data["attention"] or [None])[-1])
    parts: list[Rectangle | Label] = []
    columns = data["tokens"][kind["columns"]] if kind else data["attribution"]["inputs"]
    left = _widest(data["tokens"][kind["rows"]]) if kind else 60
    top = 16 + _widest(columns)
    if kind:
        layer = kind["layers"][-1]
        weights = layer["weights"].mean(0)
        rows = data["tokens"][kind["rows"]]
        which = "mean of the heads" if len(layer["heads"]) > 1 else f"head {layer['heads'][0]}"
        parts.append(Label(8, 14, f"{kind['title']}, layer {layer['layer']}, {which}"))
        parts += [Label(left - 6, top + CELL * i + 13, _visible(token), end=True) for i, token in enumerate(rows)]
        parts += _heat(weights, left, top)
        top_of_columns = top
        top += CELL * len(rows) + GAP
    else:
        top_of_columns = top
    parts += [
        Label(left + CELL * j + 13, top_of_columns - 6, _visible(token), upright=True)
        for j, token in enumerate(columns)
    ]
    if "attribution" in data and len(data["attribution"]["inputs"]) == len(columns):
        top = _bars(parts, data["attribution"]["methods"][0], left, top)
    width = round(left + CELL * len(columns) + 20)
    drawing = Drawing(max(width, 460), round(top + 8), parts)
    if max(drawing[:2]) > LARGEST_SIDE:
        raise DataError(f"figure: {drawing.width} x {drawing.height} pixels are too large: take a shorter text")
    return drawing


def _visible(token: str) -> str:
    return token.replace("\n", "↵").replace(" ", "·", 1) if token.startswith(" ") else token.replace("\n", "↵")


def _widest(tokens: tuple[str, ...]) -> float:
    return 14 + LETTER * max(map(len, tokens), default=1)


def _heat(weights: np.ndarray, left: float, top: float) -> list[Rectangle]:
    most = max(float(weights.max()), 1e-12)
    return [
        Rectangle(left + CELL * j, top + CELL * i, CELL - 1, CELL - 1, _mixed(float(value) / most, BLUE))
        for (i, j), value in np.ndenumerate(weights)
    ]


def _bars(parts: list[Rectangle | Label], method: PageData, left: float, top: float) -> float:
    """Append bars of what each input is worth; return where they end."""
    values = np.nan_to_num(method["total"])
    most, height = max(float(np.abs(values).max()), 1e-12), 60
    parts.append(Label(8, top + 8, f"{method['name']}: nats of log-probability, up to {most:.3g}"))
    middle = top + 18 + height
    for j, value in enumerate(values):
        size = height * abs(float(value)) / most
        y, colour = (middle - size, BLUE) if value >= 0 else (middle, ORANGE)
        parts.append(Rectangle(left + CELL * j + 2, y, CELL - 5, max(size, 1), colour))
    return middle + (height if (values < 0).any() else 4)


def _mixed(share: float, colour: Colour) -> Colour:
    share = max(0.0, min(1.0, share)) ** 0.5
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(WHITE, colour, strict=True))
    return red, green, blue


def figure_svg(data: PageData) -> bytes:
    """Return the figure as SVG."""
    drawing = draw_figure(data)
    body = [f'<rect width="{drawing.width}" height="{drawing.height}" fill="#fff"/>']
    for part in drawing.parts:
        if isinstance(part, Rectangle):
            fill = "#{:02x}{:02x}{:02x}".format(*part.colour)
            x, y, width, height = (f"{value:.1f}".removesuffix(".0") for value in part[:4])
            body.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"/>')
        else:
            turn = f' transform="rotate(-90 {part.x:.0f} {part.y:.0f})"' if part.upright else ""
            anchor = ' text-anchor="end"' if part.end else ""
            body.append(f'<text x="{part.x:.0f}" y="{part.y:.0f}"{anchor}{turn}>{html.escape(part.text)}</text>')
    frame = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" height="{drawing.height}" '
        f'viewBox="0 0 {drawing.width} {drawing.height}" font-family="sans-serif" font-size="12" fill="#1d2430">'
    )
    return f"{frame}{''.join(body)}</svg>\n".encode()


def figure_png(data: PageData) -> bytes:
    """Return the figure as PNG.

    Raises:
        ConfigError: Pillow is missing; the message names the extra.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise ConfigError(
            "page.png: images need Pillow: pip install pillow (the extra images), or write .svg"
        ) from None
    drawing, scale = draw_figure(data), 2
    try:
        font = ImageFont.truetype("DejaVuSans.ttf", 11 * scale)
    except OSError:
        font = ImageFont.load_default(11 * scale)
    image = Image.new("RGB", (drawing.width * scale, drawing.height * scale), WHITE)
    canvas = ImageDraw.Draw(image)
    for part in drawing.parts:
        if isinstance(part, Rectangle):
            x, y = part.x * scale, part.y * scale
            canvas.rectangle((x, y, x + part.width * scale - 1, y + part.height * scale - 1), fill=part.colour)
        elif part.upright:
            label = Image.new("L", (round(canvas.textlength(part.text, font=font)) + 4, 16 * scale), 0)
            ImageDraw.Draw(label).text((0, 13 * scale), part.text, fill=255, font=font, anchor="ls")
            turned = label.rotate(90, expand=True)
            image.paste(INK, (round((part.x - 13) * scale), round(part.y * scale) - turned.height), turned)
        else:
            anchor = "rs" if part.end else "ls"
            canvas.text((part.x * scale, part.y * scale), part.text, fill=INK, font=font, anchor=anchor)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()

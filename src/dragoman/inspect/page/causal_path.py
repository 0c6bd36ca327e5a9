"""Page of causal paths: for each sentence, which parts of the model its answer passes through.

Each part is set to zero by itself; the darker it is drawn, the more the log-probability of the answer falls. The path
joins the part of most effect in each layer. All is drawn here, without a script.
"""

import html
from collections.abc import Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf8; --ink: #1d2430; --soft: #5b6474; --rule: #e0ddd6; --card: #ffffff; --one: #2563c9; --two: #b8500a; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e8ec; --soft: #a3acbb; --rule: #323946; --card: #1c2027; --one: #6ea8ff; --two: #ffa458; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 24px 16px 48px; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 28px 0 4px; }
p { max-width: 76ch; margin: 6px 0; } .soft { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 8px; }
table { border-collapse: separate; border-spacing: 3px; font-size: 13px; }
th { text-align: left; font-weight: 400; color: var(--soft); padding: 2px 8px; white-space: nowrap; }
td { padding: 4px 10px; border-radius: 5px; text-align: right; border: 2px solid transparent; white-space: nowrap; }
td.path { border-color: var(--two); font-weight: 700; }
summary { cursor: pointer; color: var(--soft); }
"""  # noqa: E501
ORDER = ("mixer", "cross", "feed forward")
"""Parts in the order in which a layer has them."""
MOST = 60
"""Sentences on a page."""


def causal_path_page(title: str, explained: Sequence[Any]) -> str:
    """Return the page for explained sentences, the first ``MOST`` of them."""
    sections = "".join(_sentence(one) for one in explained[:MOST])
    left = f"<p class='soft'>{len(explained) - MOST} more sentences are in the curves only.</p>" * (
        len(explained) > MOST
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Causal paths of {html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>Causal paths of {html.escape(title)}</h1>"
        "<p>Each part of the model is set to zero by itself. The number is the fall of the log-probability of the "
        "answer, in nats; the path joins the part of most effect in each layer. Parts may stand in for one another, so "
        "the falls do not add up.</p>"
        f"<main>{sections}</main>{left}</body></html>\n"
    )


def _sentence(one: Any) -> str:
    text, answer = html.escape(one.text), html.escape("".join(one.outputs))
    return (
        f'<section><h2 dir="auto">{text}</h2><p dir="auto">{answer} <span class="soft">log-probability '
        f"{one.log_prob:.2f}</span></p>{_table(one.parts)}{_heads(one.parts)}</section>"
    )


def _table(parts: Sequence[Any]) -> str:
    """Return the effects of whole parts: a row for each layer, a column for each part."""
    cells: dict[str, dict[str, float]] = {}
    for part in parts:
        if part.head is None:
            layer, name = _split(part.place)
            cells.setdefault(layer, {})[name] = part.total
    found = dict.fromkeys(name for row in cells.values() for name in row)
    names = sorted(found, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    most = max((abs(value) for row in cells.values() for value in row.values()), default=0) or 1
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{layer}</th>{"".join(_cell(row, name, most) for name in names)}</tr>'
        for layer, row in cells.items()
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Effects by layer"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(row: dict[str, float], name: str, most: float) -> str:
    if name not in row:
        return "<td></td>"
    value = row[name]
    on_path = value == max(row.values()) and value > 0
    colour = "--one" if value >= 0 else "--two"
    share = round(70 * (abs(value) / most) ** 0.5)
    mark = ' class="path"' if on_path else ""
    style = f"background:color-mix(in srgb, var({colour}) {share}%, transparent)"
    said = '<span class="soft"> path</span>' if on_path else ""
    return f'<td{mark} style="{style}">{value:.2f}{said}</td>'


def _split(place: str) -> tuple[str, str]:
    names = place.split(".")
    layer = next((i for i, name in enumerate(names) if name.isdigit()), 0)
    return " ".join(names[: layer + 1]), names[layer + 1].replace("_", " ")


def _heads(parts: Sequence[Any]) -> str:
    """Return the heads of most effect as a list."""
    heads = sorted((part for part in parts if part.head is not None), key=lambda part: -part.total)[:12]
    if not heads:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{part.place.removesuffix('.heads')}, head {part.head}</th><td>{part.total:.2f}</td></tr>"
        for part in heads
    )
    return f"<details><summary>Heads of most effect</summary><table>{rows}</table></details>"

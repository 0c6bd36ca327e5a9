"""Writing of a checklist: one HTML page without anything from elsewhere, which reads and prints without scripts."""

import html
from collections.abc import Iterable
from importlib.resources import files
from itertools import groupby
from string import Template

from dragoman.inspect.checklist.collect import Checklist
from dragoman.inspect.checklist.row import ChecklistExample, ChecklistRow, ChecklistTable

SIGNS = {"good": "✓", "look": "!", "poor": "✗", "not measured": "?"}
"""Sign beside each verdict, so that colour is not needed."""
WORDS = {"good": "good", "look": "look at it", "poor": "poor", "not measured": "not measured"}


def as_page(checklist: Checklist) -> bytes:
    """Return the page."""
    frame = Template(files("dragoman.inspect.checklist").joinpath("page.html").read_text(encoding="utf-8"))
    page = frame.substitute(
        title=html.escape(f"{checklist.run}: before it goes live"),
        run=html.escape(checklist.run),
        day=html.escape(checklist.day),
        summary="".join(
            f'<li class="{_class(verdict)}"><b>{count}</b> {WORDS[verdict]}</li>'
            for verdict, count in checklist.counts().items()
            if count
        ),
        first="".join(_first(checklist, verdict) for verdict in ("poor", "look")),
        facts="".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in checklist.facts
        ),
        groups="".join(_group(name, list(rows)) for name, rows in groupby(checklist.rows, key=lambda row: row.group)),
    )
    return page.encode()


def _first(checklist: Checklist, verdict: str) -> str:
    """Return links to the rows with a verdict, for the head of the page."""
    rows = [row for row in checklist.rows if row.verdict == verdict]
    links = ", ".join(f'<a href="#{_anchor(row)}">{html.escape(row.title)}</a>' for row in rows)
    return f'<p class="{_class(verdict)}"><b>{WORDS[verdict].capitalize()}:</b> {links}</p>' if rows else ""


def _anchor(row: ChecklistRow) -> str:
    return html.escape(f"{row.group}-{row.title}".lower().replace(" ", "-"), quote=True)


def _class(verdict: str) -> str:
    return verdict.replace(" ", "-")


def _group(name: str, rows: list[ChecklistRow]) -> str:
    return f"<section><h2>{html.escape(name)}</h2>{''.join(map(_row, rows))}</section>"


def _row(row: ChecklistRow) -> str:
    details = "".join((*map(_table, row.tables), _examples(row.examples)))
    more = f"<details><summary>Figures and examples</summary>{details}</details>" if details else ""
    note = "; ".join(filter(None, (row.measured, row.limits)))
    return (
        f'<article id="{_anchor(row)}" class="{_class(row.verdict)}"><p class="verdict">'
        f'<span aria-hidden="true">{SIGNS[row.verdict]}</span>'
        f" {WORDS[row.verdict]}</p><div><h3>{html.escape(row.title)}</h3><p>{html.escape(row.finding)}</p>"
        f"{f'<p class=note>{html.escape(note)}.</p>' if note else ''}{more}</div></article>"
    )


def _table(table: ChecklistTable) -> str:
    heading = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.heading)
    rows = "".join(f"<tr>{_cells(row)}</tr>" for row in table.rows)
    return f'<div class="wide" tabindex="0"><table><thead><tr>{heading}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: Iterable[str]) -> str:
    first, *rest = row
    return f'<th scope="row">{html.escape(first)}</th>' + "".join(f"<td>{html.escape(cell)}</td>" for cell in rest)


def _examples(examples: tuple[ChecklistExample, ...]) -> str:
    return "".join(
        "<dl>"
        + "".join(
            f'<div><dt>{html.escape(name)}</dt><dd dir="auto">{html.escape(text) or "<i>nothing</i>"}</dd></div>'
            for name, text in one.parts
        )
        + "</dl>"
        for one in examples
    )

"""Page that shows what was translated in documents: doubtful entries first, each with its place."""

import os
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from dragoman.decode.documents.document import DocumentEntry, DocumentSummary, Origin

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem } td, th { text-align: left; vertical-align: top;
padding: .35rem .6rem; border-bottom: 1px solid #ddd } th { color: #555; font-weight: 600 }
td.number { text-align: right; font-variant-numeric: tabular-nums } .doubtful { background: #fff3d6 }
.failed { color: #a40000 } small { color: #555 } td { white-space: pre-wrap; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e6e6e6 } td, th { border-color: #333 }
.doubtful { background: #4a3b12 } th, small { color: #aaa } a { color: #8ab4f8 } .failed { color: #ff8a80 } }
"""


def report_page(
    files: Sequence[tuple[str, DocumentSummary]], failures: Sequence[str] = (), *, relative_to: Path = Path()
) -> str:
    """Return the page.

    Args:
        files: documents by name.
        failures: reasons for which files were left out.
        relative_to: folder of the page, for the links to the files.
    """
    return "".join(
        [
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>Translated documents</title>",
            f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>",
            "<h1>Translated documents</h1>",
            *(f"<p class='failed'>{escape(failure)}</p>" for failure in failures),
            *_totals(files),
            *_entries([(name, entry) for name, done in files for entry in done.entries], relative_to),
            "</body></html>\n",
        ]
    )


def _totals(files: Sequence[tuple[str, DocumentSummary]]) -> Iterator[str]:
    yield "<table><tr><th>file<th>translated<th>from memory<th>for review<th>unchanged<th>without a translation</tr>"
    for name, done in files:
        numbers = (done.filled, done.remembered, done.flagged, done.left, done.untranslated)
        yield f"<tr><td>{escape(name)}{''.join(f'<td class=number>{number:,}' for number in numbers)}</tr>"
    yield "</table>"


def _entries(entries: Sequence[tuple[str, DocumentEntry]], folder: Path) -> Iterator[str]:
    """Yield the table of all entries but those that were kept: doubtful ones first, then by confidence."""
    new = [(name, entry) for name, entry in entries if entry.origin is not Origin.kept or entry.review]
    new.sort(key=lambda item: (not (item[1].review or item[1].origin is Origin.none), item[1].confidence))
    yield "<table><tr><th>place<th>source<th>translation<th>confidence<th>by<th>remarks</tr>"
    for name, entry in new:
        doubtful = " class=doubtful" if entry.review or entry.origin is Origin.none else ""
        remarks = "; ".join(entry.warnings) or ("marked for review" if entry.review else "")
        confidence = f"{entry.confidence:.2f}" if entry.origin is Origin.model else ""
        yield (
            f"<tr{doubtful}><td>{_link(name, entry.place, folder)}<td>{escape(entry.source)}<td>{escape(entry.text)}"
            f"<td class=number>{confidence}<td>{_made_by(entry)}<td><small>{escape(remarks)}</small></tr>"
        )
    yield "</table>"


def _made_by(entry: DocumentEntry) -> str:
    if entry.similarity is None:
        return entry.origin
    how = f"of {entry.similarity:.0%}" if entry.cosine is None else f"by meaning (cosine {entry.cosine:.2f})"
    return f"{entry.origin}, with a match {how}"


def _link(name: str, place: str, folder: Path) -> str:
    """Return a link to a file, with the line in its text and in its fragment."""
    if not os.path.exists(name):
        return escape(place)
    line = re.search(r":(\d+)", place.removeprefix(name))
    address = os.path.relpath(name, folder or ".").replace(os.sep, "/")
    return f"<a href='{escape(address, quote=True)}{f'#L{line[1]}' if line else ''}'>{escape(place)}</a>"

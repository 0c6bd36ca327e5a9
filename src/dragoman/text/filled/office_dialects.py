"""Dialects of office documents: what the parts of a paragraph are called in each format, and which hold text."""

import re
from typing import NamedTuple

from dragoman.text.filled.run_properties import is_unseen
from dragoman.text.formats.markup import Element

_CHARACTER = re.compile(r"_x([0-9A-Fa-f]{4})_")
"""Character as Excel writes those that XML does not hold as they are."""


class Dialect(NamedTuple):
    """Names of a paragraph's parts in a format."""

    paragraphs: tuple[str, ...]
    """Elements that hold one text each."""
    run: str | None
    """Element of a stretch of text in one format; None where text stands by itself."""
    containers: tuple[str, ...] = ()
    """Elements inside a paragraph whose runs are part of its text, such as links."""
    dropped: tuple[str, ...] = ()
    """Elements that are left out when a paragraph is written anew."""
    partly: tuple[tuple[str, str], ...] = ()
    """Containers of which only one child, named second, holds text: the words below their reading (furigana)."""
    excluded: tuple[str, ...] = ()
    """Elements whose paragraphs stay, such as comments."""
    characters: re.Pattern[str] | None = None
    """Pattern of characters that are written as code."""
    style: str | None = None
    """Element that defines a style."""
    unseen: frozenset[str] = frozenset()
    """Styles of stretches of text that readers do not see."""

    def with_style(self, style: Element) -> "Dialect":
        """Return the dialect of a file that defines this style too."""
        name = next((value for key, value in style.attributes.items() if key.rpartition(":")[2] == "name"), "")
        return self._replace(unseen=self.unseen | {name}) if is_unseen(style) else self

    def passes_over(self, element: Element) -> bool:
        """Return True if an element only gives its text a style that readers do not see."""
        if not self.unseen or element.name != "span":
            return False
        styles = (value for key, value in element.attributes.items() if key.rpartition(":")[2] == "style-name")
        return next(styles, None) in self.unseen

    def inside(self, element: Element) -> Element | None:
        """Return the element whose runs are part of a paragraph's text: a container, or the child of one that is."""
        child = dict(self.partly).get(element.name)
        found = element.find(child) if child else element if element.name in self.containers else None
        return None if found is None or found.is_one_tag else found

    def excludes(self, element: Element) -> bool:
        """Return True if the paragraphs in an element stay: comments, numbers, results of formulas."""
        if element.name not in ("table-cell", "covered-table-cell"):
            return element.name in self.excluded
        cell = element.attributes
        return cell.get("office:value-type", "string") != "string" or "table:formula" in cell


WORD = Dialect(
    ("p",),
    "r",
    ("hyperlink", "ins", "moveTo", "smartTag", "customXml", "fldSimple", "dir", "bdo"),
    dropped=("proofErr", "lastRenderedPageBreak"),
    partly=(("sdt", "sdtContent"), ("ruby", "rubyBase")),
)
SLIDES = Dialect(("p",), "r")
SHEETS = Dialect(("si", "is"), "r", dropped=("phoneticPr", "rPh"), characters=_CHARACTER)
OPEN_DOCUMENT = Dialect(
    ("p", "h"),
    None,
    ("span", "a"),
    dropped=("soft-page-break",),
    partly=(("ruby", "ruby-base"),),
    excluded=("tracked-changes", "annotation"),
    style="style",
)
CONTENTS = Dialect(("text",), None)
"""Labels of an e-book's table of contents."""
PACKAGE = Dialect(("title",), None)
"""Title of an e-book."""


def characters(text: str) -> str:
    """Return a text with the characters that Excel writes as code, such as _x000a_ for a line break."""
    return _CHARACTER.sub(lambda found: chr(int(found[1], 16)), text)

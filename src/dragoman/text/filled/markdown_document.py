"""Markdown: the text of headings, paragraphs, list items and table cells.

Code, links, front matter and HTML blocks stay.

A paragraph is translated as one text, whatever lines it is written on, and wrapped again to the width that it had.
Emphasis, links, images and code inside of it are code that survives; the words of links and images are translated.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from dragoman.text.filled.spans import SpannedDocument, TextFile

_FRONT = re.compile(
    r"(?:---[ \t]*\r?\n.*?\r?\n(?:---|\.\.\.)|\+\+\+[ \t]*\r?\n.*?\r?\n\+\+\+)[ \t]*(?:\r?\n|$)", re.DOTALL
)
_NO_LINE_END = re.compile("\r(?!\n)|\u2028")
"""Characters that the parser or ``str`` takes for line ends, where lines are counted by line feeds."""
_BREAK = re.compile(r"(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)|(?P<hard>  +|\\)?\n[ \t]*", re.DOTALL)
_LINK = r"\[(?:[^\[\]\\]|\\.|\[(?:[^\[\]\\]|\\.)*\])*\]"
_CODE = re.compile(
    rf"""
  (?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)
| <(?:[a-zA-Z][a-zA-Z0-9+.-]*:[^<>\s]*|[^\s<>@]+@[^\s<>@]+|!--.*?--|/?[a-zA-Z][^<>]*)>
| \\[!-/:-@\[-`{{-~]
| \[\^[^\]\s]+\]
| (?P<reference>!?{_LINK}\[\])
| (?P<begin>!?\[)(?=(?:[^\[\]\\]|\\.|\[(?:[^\[\]\\]|\\.)*\])*\][(\[])
| (?P<finish>\]\((?:[^()\\]|\\.|\([^()]*\))*\))
| \]\[[^\[\]]+\]
| (?P<shortcut>!?{_LINK})(?![\[(])
| (?P<emphasis>\*+|(?<![^\W_])_+|_+(?![^\W_])|~~)
""",
    re.VERBOSE | re.DOTALL,
)
_MARK = re.compile(r"\[[ xX]\]\s+|\[\^[^\]\s]+\]:\s+|:\s+|\[![\w-]+\][-+]?[ \t]+")
"""Beginnings of a text that are no part of it: the box of a task, the name of a footnote, the colon of a definition,
the kind of an alert with a title."""
_KEPT = re.compile(
    r"\[![\w-]+\][-+]?|\[\[?_?TOC_?\]?\]"  # alerts of GitHub, places of a table of contents
    r"|:{3,}.*|(?:!!!|\?\?\?\+?)\s.*|===[+!]?\s+\".*"  # containers, admonitions, tabs
    r"|\{%.*%\}|\{\{[<%].*[>%]\}\}|\{[:#.].*\}",  # statements of templates, attributes of a block
)
"""Lines that are no text, in dialects that a parser of CommonMark takes for a part of the paragraph beside them."""
_BLOCK = re.compile(
    r"(?=[-+*](?:\s|$)|\#{1,6}(?:\s|$)|>|```|~~~|:\s|=+\s*$|(?:-[ \t]*)+$|(?:_[ \t]*){3,}$|(?:\*[ \t]*){3,}$)"
    r"|(?<=\d)(?=[.)](?:\s|$))"
)
"""Place of a backslash in a line that would otherwise be another kind of block."""
_STARTS = re.compile(r"(?:[-+*>#]|\d+[.)]|=+$|-+$|\||```|~~~|:)")
"""Beginnings of a line that would make it another kind of block."""


class MarkdownDocument(SpannedDocument):
    """Slots of a Markdown file: one per heading, paragraph or table cell."""

    numbered = True

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a Markdown file: CommonMark with tables and strikethrough.

        Raises:
            DataError: not UTF-8; the message names the line.
        """
        from markdown_it import MarkdownIt

        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        text = self.text_file.text
        front = _FRONT.match(text)
        blank = re.sub(r"[^\n]", "", front[0]) if front else ""
        environment: dict[str, Any] = {}
        parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
        body = _NO_LINE_END.sub(" ", text[front.end() if front else 0 :])
        tokens = parser.parse(blank + body, environment)
        self.references = environment.get("references", {})
        self.starts = [0, *self.text_file.ends]
        self.at = 0
        """Position after the last text that was found."""
        kind = ""
        for token in tokens:
            if token.type == "inline" and token.map:
                self.add_inline(token, kind)
            kind = token.type

    def add_inline(self, token: Any, kind: str) -> None:
        """Add the slots of a block's text: one, or one for each part between lines that are no text."""
        cell = kind in ("td_open", "th_open")
        lines = [(self.found(line.strip(), cell=cell, token=token), line) for line in token.content.split("\n")]
        spans = [span for span, _ in lines if span is not None]
        if len(spans) < len(lines) or not spans:
            self.notes.append(
                f"{self.text_file.name}:{token.map[0] + 1}: could not be followed here, and stays as it is"
            )
            return
        for part in self.parts(spans) if kind == "paragraph_open" else [spans]:
            self.add_text(part, token, kind)

    def parts(self, spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """Yield the lines of each text in a paragraph, given the spans of all of its lines."""
        part: list[tuple[int, int]] = []
        in_formula = False
        for span in spans:
            line = self.text_file.text[slice(*span)].strip()
            opens_or_closes = line.count("$$") == 1 and (line.startswith("$$") or (in_formula and line.endswith("$$")))
            kept = in_formula or opens_or_closes or _KEPT.fullmatch(line)
            if part and (kept or _MARK.match(line)):
                yield part
                part = []
            in_formula ^= opens_or_closes
            part += [] if kept else [span]
            if re.match(r"\[![\w-]+\]", line) and part:  # an alert's title
                yield part
                part = []
        if part:
            yield part

    def add_text(self, spans: list[tuple[int, int]], token: Any, kind: str) -> None:
        """Add the slot of a text on these lines."""
        file, cell = self.text_file.text, kind in ("td_open", "th_open")
        if mark := _MARK.match(file[slice(*spans[0])]):  # which stays before the text
            spans[0] = spans[0][0] + mark.end(), spans[0][1]
        raw = "\n".join(file[start:end] + "  " * file.startswith("  ", end) for start, end in spans)
        text, codes = self.text_of(raw.rstrip(), token)
        if text.startswith("$$") or not any(map(str.isalpha, text)):
            return
        self.add(
            (spans[0][0], spans[-1][1]),
            text,
            place=self.text_file.place(spans[0][0]),
            key=f"{len(self.slots)}{kind.removesuffix('_open')}",
            codes=codes,
            write=self.writer(text, codes, spans, cell=cell),
        )

    def found(self, line: str, *, cell: bool, token: Any) -> tuple[int, int] | None:
        """Return the span of a line of a block, after those that were found before."""
        first, last = token.map
        start = max(self.at, self.starts[first])
        end = self.starts[last] if last < len(self.starts) else len(self.text_file.text)
        for written in (line, line.replace("|", "\\|")) if cell else (line,):
            at = self.text_file.text.find(written, start, end)
            if at >= 0:
                self.at = at + len(written)
                return at, self.at
        return None

    def text_of(self, raw: str, token: Any) -> tuple[str, tuple[str, ...]]:
        """Return the text of a block on one line, hard breaks as line ends, and the markup in it."""
        text = _BREAK.sub(_on_one_line, raw.replace("\r", ""))
        marks = {
            child.markup[:1] for child in token.children or () if child.type in ("em_open", "strong_open", "s_open")
        }
        return text, tuple(self.codes_of(text, marks))

    def codes_of(self, text: str, marks: set[str]) -> Iterator[str]:
        """Yield the markup in a text."""
        at = 0
        while found := _CODE.search(text, at):
            at = found.end()
            if found["emphasis"] and found["emphasis"][0] not in marks:
                continue
            if found["shortcut"]:
                label = found["shortcut"].lstrip("!")[1:-1]
                if " ".join(label.split()).upper() in self.references:
                    yield found["shortcut"]
                else:
                    at = found.start() + 1
                continue
            if found["begin"] and re.match(r"[^\[\]]*\]\([^()\s]*\)", text[at:]):
                continue  # an ordinary link, which is known as a placeholder with two ends
            if found["finish"] and re.fullmatch(r"\]\([^()\s]*\)", found["finish"]):
                continue
            yield found[0]

    def writer(self, source: str, codes: Sequence[str], spans: Sequence[tuple[int, int]], *, cell: bool):
        """Return the function that writes a block's text on lines like those it was on."""
        file = self.text_file
        width = max(end - file.text.rfind("\n", 0, start) - 1 for start, end in spans)
        prefix = ""
        if len(spans) > 1:
            start = spans[1][0]
            prefix = file.text[file.text.rfind("\n", 0, start) + 1 : start]
        hard = "\\" if re.search(r"\\\r?\n", file.text[spans[0][0] : spans[-1][1]]) else "  "
        before = file.text[file.text.rfind("\n", 0, spans[0][0]) + 1 : spans[0][0]]
        in_heading = re.search(r"#\s*$", before) is not None
        bare = source
        for code in codes:
            bare = bare.replace(code, "", 1)

        def write(text: str, own: Sequence[str]) -> str:
            text = _escaped(text, bare, own or codes)
            if cell:
                return re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n", " "))
            lines = [line if in_heading else _guarded(line) for line in text.split("\n")]
            if len(spans) > 1:
                kept = [_wrapped(line, max(width - len(prefix), 20)) for line in lines]
            else:
                kept = [[line] for line in lines]
            gap = file.line_end + prefix
            return f"{hard}{gap}".join(gap.join(part) for part in kept)

        return write


def _on_one_line(found: re.Match[str]) -> str:
    """Return a line break as a space, a hard one as a line end, and code on one line."""
    return re.sub(r"\n[ \t]*", " ", found[0]) if found["ticks"] else "\n" if found["hard"] else " "


def _escaped(text: str, source: str, codes: Sequence[str]) -> str:
    """Return a translation with signs of markup escaped that neither its codes nor the source text have."""
    pattern = "|".join(map(re.escape, sorted(set(codes), key=len, reverse=True)))
    parts = re.split(f"({pattern})", text) if pattern else [text]
    special = "".join(c for c in "*`<" if c not in source)
    return "".join(
        part if i % 2 or not special else re.sub(f"[{re.escape(special)}]", r"\\\g<0>", part)
        for i, part in enumerate(parts)
    )


def _guarded(line: str) -> str:
    """Return a line with a backslash where it would otherwise be another kind of block."""
    number = re.match(r"\d{1,9}", line)
    place = _BLOCK.match(line, number.end() if number else 0)
    return line if place is None else f"{line[: place.start()]}\\{line[place.start() :]}"


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line wrapped; no line begins like another kind of block."""
    lines = textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [line]
    joined = lines[:1]
    for following in lines[1:]:
        if _STARTS.match(following):
            joined[-1] += " " + following
        else:
            joined.append(following)
    return joined

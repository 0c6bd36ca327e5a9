"""HTML around translation: which stretches of text are translated, and the page with their translations in place.

A stretch runs from one block element to the next. Inline tags inside it stay in the text that is translated, where they
are placeholders; all other markup stays where it is.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import replace

from dragoman.decode.translation import Translation

_MARKUP = re.compile(r"<!--.*?(?:-->|\Z)|<[!?][^>]*>|</?[A-Za-z][^\s<>/]*(?:[^<>\"']|\"[^\"]*\"|'[^']*')*>", re.DOTALL)
_NAME = re.compile(r"</?([A-Za-z][^\s<>/]*)")
_SPACE = re.compile(r"[ \t\n\r\f]+")
_BLOCKS = frozenset(
    re.findall(
        r"\w+",
        """address article aside blockquote body br button caption center col colgroup dd details dialog dir div dl dt
        fieldset figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html legend li main menu
        meta nav noscript ol optgroup option p pre script section select style summary table tbody td template textarea
        tfoot th thead title tr ul""",
    )
)
"""Elements that end the text before them."""
_KEPT = frozenset(("script", "style", "svg", "math", "textarea", "template"))
"""Elements whose content is not translated."""
_UNTRANSLATED = re.compile(
    r"\btranslate\s*=\s*[\"']?no\b|\bclass\s*=\s*(?:\"[^\"]*\bnotranslate\b|'[^']*\bnotranslate\b)", re.I
)
_VOID = frozenset(re.findall(r"\w+", "area base br col embed hr img input link meta source track wbr"))
_AS_WRITTEN = re.compile(r"&(?:lt|gt|#0*6[02]|#x0*3[ce]);?", re.IGNORECASE)
"""Entities that would look like a tag; they stay as they are."""


class HtmlText:
    """An HTML text divided into markup and stretches to translate."""

    def __init__(self, source: str):
        self.source = source
        self._parts: list[tuple[str, bool]] = []  # (markup as it stands, False) or (text to translate, True)
        self._stretch: list[tuple[str, bool]] = []  # (inline tag or text as written, True for a tag)
        self._kept: list[str] = []  # open elements that are not translated, from the outermost on
        at = 0
        for match in _MARKUP.finditer(source):
            self._add_text(source[at : match.start()])
            self._add_markup(match[0])
            at = match.end()
        self._add_text(source[at:])
        self._end_stretch()

    @property
    def pieces(self) -> list[str]:
        """Texts to translate, in order."""
        return [part for part, is_text in self._parts if is_text]

    def filled(self, row: int, translations: Mapping[str, Translation]) -> Translation:
        """Return the translation of the whole, from those of its pieces.

        Its warnings are theirs, and its confidence is the lowest one. The candidates of a text of one piece stay.
        """
        pieces = [translations[piece] for piece in self.pieces]
        if len(pieces) == 1:
            [only] = pieces
            candidates = tuple(
                replace(one, text=self._with({only.source: one.text}), alignment=None, parts=one.answers(only.source))
                for one in only.candidates
            )
            return replace(only, row=row, source=self.source, candidates=candidates)
        return self._combined(row, pieces)

    def _combined(self, row: int, pieces: list[Translation]) -> Translation:
        from dragoman.decode.translation import Candidate

        best = [piece.candidates[0] for piece in pieces]
        confidence = min((piece.confidence for piece in pieces), default=1.0)
        candidate = Candidate(
            text=self._with({piece.source: piece.text for piece in pieces}),
            score=sum(one.score for one in best),
            log_prob=sum(one.log_prob for one in best),
            tokens=tuple(token for one in best for token in one.tokens),
            token_log_probs=tuple(log_prob for one in best for log_prob in one.token_log_probs),
            truncated=any(one.truncated for one in best),
            confidence=confidence,
            parts=tuple(part for one, piece in zip(best, pieces, strict=True) for part in one.answers(piece.source)),
        )
        warnings = tuple(dict.fromkeys(warning for piece in pieces for warning in piece.warnings))
        return Translation(row, self.source, (candidate,), warnings, confidence)

    def _with(self, texts: Mapping[str, str]) -> str:
        return "".join(_escaped(texts[part], part) if is_text else part for part, is_text in self._parts)

    # ---- dividing ----

    def _add_text(self, text: str) -> None:
        if self._kept:
            self._parts.append((text, False))
        elif text:
            self._stretch.append((text, False))

    def _add_markup(self, markup: str) -> None:
        found = _NAME.match(markup)
        name = found[1].lower() if found else ""
        if self._kept:
            self._parts.append((markup, False))
            self._follow_kept(name, markup)
            return
        opens = bool(name) and not markup.startswith("</") and not markup.endswith("/>") and name not in _VOID
        if opens and (name in _KEPT or _UNTRANSLATED.search(markup)):
            self._end_stretch()
            self._parts.append((markup, False))
            self._kept.append(name)
        elif name in _BLOCKS or not name:
            self._end_stretch()
            self._parts.append((markup, False))
        else:
            self._stretch.append((markup, True))

    def _follow_kept(self, name: str, markup: str) -> None:
        """Follow the elements inside one that is not translated, until it ends."""
        if name != self._kept[-1]:
            return
        if markup.startswith("</"):
            self._kept.pop()
        elif not markup.endswith("/>"):
            self._kept.append(name)

    def _end_stretch(self) -> None:
        """Divide a stretch into the tags and spaces around it, which stay, and the text between."""
        stretch, self._stretch = self._stretch, []
        start, end = 0, len(stretch)
        while end - start > 1 and _encloses(stretch[start], stretch[end - 1], stretch[start + 1 : end - 1]):
            start, end = start + 1, end - 1
        inner = stretch[start:end]
        self._parts += [(part, False) for part, _ in stretch[:start]]
        if any(not is_tag and part.strip() for part, is_tag in inner):
            text = "".join(part if is_tag else _SPACE.sub(" ", _read(part)) for part, is_tag in inner)
            before, after = (len(text) - len(some) for some in (text.lstrip(), text.rstrip()))
            self._parts += [(text[:before], False), (text.strip(), True), (text[len(text) - after :], False)]
        else:
            self._parts += [(part, False) for part, _ in inner]
        self._parts += [(part, False) for part, _ in stretch[end:]]


def _encloses(first: tuple[str, bool], last: tuple[str, bool], between: list[tuple[str, bool]]) -> bool:
    """Return whether a tag opens, and another closes it, around everything between."""
    if not (first[1] and last[1]) or first[0].startswith("</") or not last[0].startswith("</"):
        return False
    opened, closed = _NAME.match(first[0]), _NAME.match(last[0])
    assert opened and closed
    name = opened[1].lower()
    inside = (found[1].lower() for part, is_tag in between if is_tag and (found := _NAME.match(part)))
    return name == closed[1].lower() and name not in inside


def _read(text: str) -> str:
    """Return text as a reader sees it; < and > stay entities, for they would look like tags."""
    parts, at = [], 0
    for match in _AS_WRITTEN.finditer(text):
        parts += [html.unescape(text[at : match.start()]), match[0]]
        at = match.end()
    return "".join([*parts, html.unescape(text[at:])])


def _escaped(translation: str, piece: str) -> str:
    """Return a translation as HTML: its tags, which are those of the piece, and entities as they are."""
    kept = dict.fromkeys([*(found[0] for found in _MARKUP.finditer(piece)), *_AS_WRITTEN.findall(piece)])
    if not kept:
        return html.escape(translation, quote=False)
    pattern = re.compile("|".join(map(re.escape, sorted(kept, key=len, reverse=True))))
    parts, at = [], 0
    for match in pattern.finditer(translation):
        parts += [html.escape(translation[at : match.start()], quote=False), match[0]]
        at = match.end()
    return "".join([*parts, html.escape(translation[at:], quote=False)])

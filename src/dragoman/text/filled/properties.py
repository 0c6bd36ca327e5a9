"""Java's ``.properties``: ``key = value`` with escapes, in UTF-8 or in ISO-8859-1, as Java reads them."""

import re
from collections.abc import Iterator, Sequence

from dragoman.errors import DataError
from dragoman.text.filled.comments import comment_lines_above
from dragoman.text.filled.escapes import joined_surrogates
from dragoman.text.filled.plural_categories import plural_categories
from dragoman.text.filled.spans import SpannedDocument, TextFile

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_INDENT = re.compile(r"[ \t\f]*")
_KEY = re.compile(r"(?P<key>(?:[^\\=:\s]|\\.)*)(?P<gap>[ \t\f]*[=:]?[ \t\f]*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u(?P<hex>[0-9A-Fa-f]{4})|(?P<fold>(?:\r\n|\r|\n)[ \t\f]*)|(?P<char>.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "f": "\f"}
_ARGUMENT = re.compile(r"\{\d+[^{}]*\}")


class PropertiesDocument(SpannedDocument):
    """Slots of a ``.properties`` file: one per value, or per branch of an ICU message."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a ``.properties`` file. One that is not UTF-8 is ISO-8859-1.

        Raises:
            DataError: an escape ``\\u`` without four digits; the message names the line.
        """
        self.text_file = TextFile(raw, name, encodings=("utf-8", "iso-8859-1"))
        super().__init__(self.text_file)
        self.escapes = self.text_file.encoding == "iso-8859-1" or self.text_file.text.isascii()
        """True where characters beyond ASCII are written as escapes: unless the file has some as they are, since Java
        before 9 reads ISO-8859-1."""
        categories = plural_categories(target)
        for key, start, end in self.entries():
            value = self.text_file.text[start:end]
            text = unescaped(value, self.text_file.place(start))
            doubled = _has_doubled_quotes(text)
            self.add(
                (start, end),
                text.replace("''", "'") if doubled else text,
                place=self.text_file.place(start),
                key=key,
                write=self.writer(doubled),
                icu=categories,
                notes=comment_lines_above(self.text_file.text, start, "#!"),
            )

    def entries(self) -> Iterator[tuple[str, int, int]]:
        """Yield the key of each entry and the span of its value."""
        text, at = self.text_file.text, 0
        while at < len(text):
            indent = _INDENT.match(text, at)
            assert indent
            start = indent.end()
            at = self.after_line(start)
            if text[start : start + 1] in ("#", "!", "\r", "\n", ""):
                continue
            while _continues(text[start:at]) and at < len(text):
                at = self.after_line(at)
            line = _without_line_end(text[start:at])
            key = _KEY.match(line)
            assert key
            yield unescaped(key["key"], self.text_file.place(start)), start + key.end(), start + len(line)

    def after_line(self, at: int) -> int:
        """Return the end of the line that a position is on."""
        found = _LINE.match(self.text_file.text, at)
        assert found
        return found.end()

    def writer(self, doubled: bool):
        """Return the function that writes a value; ``doubled`` for messages in which an apostrophe is two."""

        def write(text: str, _: Sequence[str]) -> str:
            text = text.replace("'", "''") if doubled else text
            return self.escaped(text)

        return write

    def escaped(self, text: str) -> str:
        """Return a text as a value."""
        text = text.replace("\\", "\\\\")
        for character, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\f", "\\f")):
            text = text.replace(character, escape)
        text = re.sub("^ ", "\\\\ ", text)
        if not self.escapes:
            return text
        units = (text[i].encode("utf-16-be") for i in range(len(text)))
        return "".join(
            c if c.isascii() else "".join(f"\\u{unit.hex()[k : k + 4]}" for k in range(0, len(unit.hex()), 4))
            for c, unit in zip(text, units, strict=True)
        )


def _continues(line: str) -> bool:
    """Return True if a line ends in an odd number of backslashes."""
    bare = _without_line_end(line)
    return bare != line and (len(bare) - len(bare.rstrip("\\"))) % 2 == 1


def _without_line_end(line: str) -> str:
    """Return a line without its own line end: a line before may end in another."""
    return re.sub(r"(?:\r\n|\r|\n)\Z", "", line)


def _has_doubled_quotes(text: str) -> bool:
    """Return True for a message with arguments, in which Java reads two apostrophes as one."""
    return bool(_ARGUMENT.search(text)) and "'" not in text.replace("''", "")


def unescaped(text: str, place: str) -> str:
    """Return the text of a value as it is written.

    Raises:
        DataError: an escape without its four digits.
    """

    def read(match: re.Match[str]) -> str:
        if match["fold"]:
            return ""
        if match["hex"]:
            return chr(int(match["hex"], 16))
        if match["char"] == "u":
            raise DataError(f"{place}: \\u is not followed by four hexadecimal digits")
        return _PLAIN.get(match["char"], match["char"])

    return joined_surrogates(_ESCAPE.sub(read, text))

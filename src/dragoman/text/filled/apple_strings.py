"""Apple's ``.strings`` files: ``"key" = "value";`` with comments in C's style."""

import re
from collections.abc import Iterator

from dragoman.errors import DataError
from dragoman.text.filled.comments import c_comments_above
from dragoman.text.filled.escapes import joined_surrogates
from dragoman.text.filled.spans import SpannedDocument, TextFile

_SKIPPED = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_TOKEN = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[\w.$:/-]+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:U(?P<hex>[0-9A-Fa-f]{4})|(?P<octal>[0-7]{1,3})|(?P<char>.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WRITTEN = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


class AppleStrings(SpannedDocument):
    """Slots of a ``.strings`` file: one per value."""

    def __init__(self, raw: bytes, name: str, source: str | None = None, target: str | None = None):
        """Read a ``.strings`` file, in UTF-8 or, with a byte-order mark, UTF-16.

        Raises:
            DataError: a binary property list, or an entry that is not ``"key" = "value";``; the message names the line.
        """
        if raw.startswith((b"bplist", b"<?xml")):
            raise DataError(f"{name}: is a property list: convert it to a text file of strings first")
        self.text_file = TextFile(raw, name)
        super().__init__(self.text_file)
        for key, match, is_value, notes in self.entries():
            text = match["quoted"]
            if text is None:
                continue
            span = (match.start() + 1, match.end() - 1) if is_value else (match.end(), match.end())
            multiline = "\n" in text
            self.add(
                span,
                unescaped(text),
                place=self.text_file.place(span[0]),
                key=key,
                write=lambda new, _, multiline=multiline: escaped(new, multiline=multiline),
                around=("", "") if is_value else (' = "', '"'),
                notes=notes,
            )

    def entries(self) -> Iterator[tuple[str, re.Match[str], bool, tuple[str, ...]]]:
        """Yield the key of each entry, the match of its value, False where the key is the value as well, and its
        comment."""
        text, at = self.text_file.text, self.skip(0)
        notes = c_comments_above(text[:at])
        while at < len(text):
            key, at = self.token(at, "a key")
            at = self.skip(at)
            value, is_value = key, False
            if text[at : at + 1] == "=":  # else the key is the value as well
                value, at = self.token(self.skip(at + 1), "a value in quotes")
                at, is_value = self.skip(at), True
            if text[at : at + 1] != ";":
                raise DataError(f"{self.text_file.place(at)}: a semicolon expected after the value of {key[0]}")
            yield unescaped(key["quoted"] or key["bare"] or ""), value, is_value, notes
            after, at = at + 1, self.skip(at + 1)
            notes = c_comments_above(text[after:at])

    def skip(self, at: int) -> int:
        """Return the position after white space and comments."""
        found = _SKIPPED.match(self.text_file.text, at)
        assert found
        if self.text_file.text.startswith("/*", found.end()):
            raise DataError(f"{self.text_file.place(found.end())}: a comment is not closed: add */")
        return found.end()

    def token(self, at: int, wanted: str) -> tuple[re.Match[str], int]:
        """Return the string at a position, and where it ends."""
        found = _TOKEN.match(self.text_file.text, at)
        if not found:
            near = self.text_file.text[at : at + 20].partition("\n")[0]
            raise DataError(f"{self.text_file.place(at)}: {wanted} expected, not {near!r}")
        return found, found.end()


def unescaped(text: str) -> str:
    """Return the text of a string as it is written between quotes."""

    def read(match: re.Match[str]) -> str:
        if match["hex"]:
            return chr(int(match["hex"], 16))
        return chr(int(match["octal"], 8)) if match["octal"] else _PLAIN.get(match["char"], match["char"])

    return joined_surrogates(_ESCAPE.sub(read, text))


def escaped(text: str, *, multiline: bool = False) -> str:
    """Return a text as it is written between quotes; ``multiline`` keeps line ends as they are."""
    return "".join(c if multiline and c in "\n\r\t" else _WRITTEN.get(c, c) for c in text)

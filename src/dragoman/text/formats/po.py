"""PO files of gettext: scanned once, with the position of every string, so that they can be written back to the byte.

An entry is a source text (``msgid``), perhaps with a context and a plural, and its translation (``msgstr``), in one
form or several. Entries marked obsolete (``#~``) are comments here; fuzzy ones are guesses that need review.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.compressed import read_bytes
from dragoman.text.formats import plurals
from dragoman.text.formats.plurals import Plurals
from dragoman.text.lines import AnnotatedPair, Pair, check_beginning, check_string


@config
class Gettext:
    """Entries of a gettext file."""

    path: str
    """Path of a .po file, or a compiled .mo; untranslated, fuzzy and obsolete entries are skipped."""


# ---- entries --------------------------------------------------------------------------------------


@dataclass
class Value:
    """String of an entry, which may be written in several quoted parts."""

    line: int
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Positions of its parts, quotes included."""
    text: str = ""

    @property
    def end(self) -> int:
        return self.spans[-1][1]


@dataclass
class PoEntry:
    """Entry of a PO file."""

    start: int
    """Start of its first line that is not a comment, or that holds a previous source text."""
    line: int
    flags: list[re.Match[str]] = field(default_factory=list)
    previous: list[re.Match[str]] = field(default_factory=list)
    """Comments that hold the source text which a fuzzy translation is of (``#|``)."""
    context: Value | None = None
    source: Value | None = None
    plural: Value | None = None
    forms: list[Value] = field(default_factory=list)
    """Translation; all its forms, if it has a plural."""
    comments: list[str] = field(default_factory=list)
    """Lines that developers wrote for translators (``#.``)."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the context and the comments of developers."""
        return tuple(filter(None, (_text(self.context), " ".join(self.comments))))

    @property
    def fuzzy(self) -> bool:
        """Return True if a comment marks the entry as fuzzy."""
        return any("fuzzy" in _flags(comment) for comment in self.flags)

    def source_of(self, form: int, rule: Plurals | None) -> str:
        """Return the text that a form translates.

        The form for 1 translates the singular. But where it is for other numbers too, as in Russian (1, 21, 31, ...),
        it does not translate a singular without the number that the plural contains.
        """
        singular, plural = _text(self.source), _text(self.plural)
        if self.plural is None:
            return singular
        if form != (rule.singular if rule else 0):
            return plural
        usable = rule is None or rule.singular_is_exact or plurals.names_number(singular, plural)
        return singular if usable else plural


def _text(value: Value | None) -> str:
    return value.text if value else ""


def _flags(comment: re.Match[str]) -> list[str]:
    return [flag.strip() for flag in comment[0][2:].split(",")]


class Catalogue:
    """PO file as text, its entries and its header."""

    def __init__(self, raw: bytes, name: str):
        """Scan the file.

        Raises:
            DataError: it cannot be read as PO; the message names file and line.
        """
        self.name = name
        self.charset, self.text = _decode(raw, name)
        entries = list(_Scanner(self.text, name, self.charset).entries())
        headers = [entry for entry in entries if entry.context is None and not _text(entry.source)]
        self.entries = [entry for entry in entries if entry not in headers] if headers else entries
        self.header = headers[0] if headers else None
        header = headers[0].forms[0] if headers else Value(1)
        self.fields = {
            key.strip().lower(): value.strip()
            for key, _, value in (line.partition(":") for line in header.text.split("\n"))
        }
        self.plurals = self._plurals(header.line)
        """Plural rule of the language; None where the file does not give it."""

    def _plurals(self, line: int) -> Plurals | None:
        rule = None
        if stated := self.fields.get("plural-forms"):
            try:
                rule = plurals.parse(stated)
            except ValueError as error:
                raise DataError(f"{self.name}:{line}: Plural-Forms in the header: {error}") from None
        return rule or plurals.rule_of_language(self.fields.get("language", ""))


def read_po(path: str) -> Iterator[Pair]:
    """Yield the translated entries of a PO file, one pair for each plural form.

    Raises:
        DataError: it cannot be read; the message names file and line.
    """
    catalogue = Catalogue(read_bytes(path), path)
    for entry in catalogue.entries:
        if not entry.fuzzy:
            for number, form in enumerate(entry.forms):
                if form.text and (source := entry.source_of(number, catalogue.plurals)):
                    yield AnnotatedPair.of(source, form.text, entry.notes)


def _decode(raw: bytes, name: str) -> tuple[str, str]:
    """Return the file's encoding and its text."""
    check_beginning(raw, name)
    declared = re.search(rb'"\s*Content-Type:[^"\n]*charset=([\w.:-]+)', raw, re.IGNORECASE)
    charset = declared[1].decode() if declared and declared[1] != b"CHARSET" else "UTF-8"
    try:
        text = raw.decode(charset)
        faithful = text.encode(charset) == raw
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: not {charset}: convert the file with msgconv -t UTF-8") from None
    except (LookupError, UnicodeError):
        raise DataError(f"{name}: its header names the encoding {charset}, which is unknown") from None
    if not faithful:
        raise DataError(f"{name}: {charset} cannot be written back to the byte: convert it with msgconv -t UTF-8")
    return charset, text


# ---- scanning -------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
      [ \t\r\n\f\v]+
    | (?P<comment> \#[^\n]* )
    | (?P<keyword> (?:
          msgctxt | msgid_plural | msgid | domain | msgstr (?:[ \t]* \[ [ \t]* (?P<form>[0-9]{1,3}) [ \t]* \])?
      ) (?![\w\[]) )
    | (?P<string> " (?:[^"\\\n]|\\.)* " )
    """,
    re.VERBOSE,
)


class _Scanner:
    """Scanner of a PO file's tokens into entries."""

    def __init__(self, text: str, name: str, charset: str):
        self.text, self.name, self.charset = text, name, charset
        self.line = 1
        self.flags: list[re.Match[str]] = []
        """Comments before their entry."""
        self.comments: list[str] = []
        """Lines for translators before their entry."""
        self.previous: list[re.Match[str]] = []
        """Comments before their entry that hold a previous source text."""
        self.entry: PoEntry | None = None
        self.value: Value | None = None

    def entries(self) -> Iterator[PoEntry]:
        at = self.text.startswith("\ufeff")
        while at < len(self.text):
            if not (token := _TOKEN.match(self.text, at)):
                raise self.wrong(self.nonsense(at))
            yield from self.take(token)
            self.line += token[0].count("\n")
            at = token.end()
        yield from self.finish()

    def nonsense(self, at: int) -> str:
        if self.text[at] == '"':
            return "a string that does not end on its line: check its quotes and backslashes"
        return f"{self.text[at : at + 20].splitlines()[0]!r} is not part of a PO file: a comment begins with #"

    def take(self, token: re.Match[str]) -> Iterator[PoEntry]:
        match token.lastgroup:
            case "comment":
                if self.entry and self.entry.forms:
                    yield from self.finish()
                self.comment(token)
            case "keyword":
                if self.entry and self.entry.forms and not token["keyword"].startswith("msgstr"):
                    yield from self.finish()
                self.keyword(token)
            case "string":
                self.string(token)

    def comment(self, token: re.Match[str]) -> None:
        kind = token[0][:2]
        if kind == "#~":
            self.flags, self.comments, self.previous = [], [], []  # they belong to an obsolete entry
        elif kind == "#.":
            self.comments.append(token[0][2:].strip())
        elif kind == "#,":
            self.flags.append(token)
        elif kind == "#|":
            self.previous.append(token)

    def keyword(self, token: re.Match[str]) -> None:
        self.close_value()
        word = token["keyword"]
        self.value = Value(self.line)
        if word == "domain":
            return
        if self.entry is None:
            start = self.start_of_line((self.previous or [token])[0].start())
            self.entry = PoEntry(start, self.line, self.flags, self.previous, comments=self.comments)
            self.flags, self.comments, self.previous = [], [], []
        entry = self.entry
        if word == "msgctxt" and not (entry.context or entry.source):
            entry.context = self.value
        elif word == "msgid" and not entry.source:
            entry.source = self.value
        elif word == "msgid_plural" and entry.source and not entry.plural and not entry.forms:
            entry.plural = self.value
        elif word.startswith("msgstr") and entry.source and self.expected(token["form"], entry):
            entry.forms.append(self.value)
        else:
            raise self.wrong(f"{word} is out of place: an entry is msgctxt, msgid, msgid_plural, msgstr, in this order")

    def expected(self, form: str | None, entry: PoEntry) -> bool:
        if entry.plural is None:
            return form is None and not entry.forms
        if form is None or int(form) != len(entry.forms):
            raise self.wrong(f"msgstr[{len(entry.forms)}] expected: plural forms are numbered from 0")
        return True

    def string(self, token: re.Match[str]) -> None:
        if self.value is None:
            raise self.wrong("a string without a keyword such as msgid before it")
        self.value.spans.append(token.span())
        self.value.text += self.unescaped(token[0][1:-1])

    def close_value(self) -> None:
        if self.value is not None:
            if not self.value.spans:
                raise self.wrong('a keyword without its string: write "" for an empty one', self.value.line)
            check_string(self.value.text, f"{self.name}:{self.value.line}")
        self.value = None

    def finish(self) -> Iterator[PoEntry]:
        self.close_value()
        if self.entry:
            if not self.entry.forms:
                raise self.wrong("the entry that begins here has no msgstr", self.entry.line)
            yield self.entry
        self.entry = None

    def unescaped(self, text: str) -> str:
        return _ESCAPE.sub(self.character, text) if "\\" in text else text

    def character(self, escape: re.Match[str]) -> str:
        if escape["letter"]:
            return _LETTERS[escape["letter"]]
        if escape["codes"]:
            codes = [code[1:] for code in re.findall(r"\\[^\\]+", escape["codes"])]
            try:
                values = [int(code[1:], 16) if code[0] == "x" else int(code, 8) for code in codes]
                return bytes(values).decode(self.charset)
            except ValueError:
                raise self.wrong(f"{escape[0]} is not a character in {self.charset}") from None
        raise self.wrong(f"{escape[0]} is not an escape sequence: write a backslash as \\\\")

    def start_of_line(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def wrong(self, reason: str, line: int | None = None) -> DataError:
        return DataError(f"{self.name}:{line or self.line}: {reason}")


_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r'\\(?P<letter>[abfnrtv"\\])|(?P<codes>(?:\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{2}))+)|\\.')

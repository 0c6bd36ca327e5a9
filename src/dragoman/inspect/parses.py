"""Parsed sentences: for each word the words that belong to it, read from a file of heads or of brackets.

the<TAB>2                     word and number of its head, counted from 1; 0 for the root. An empty line ends a
dog<TAB>3                     sentence. Of more columns the first is the word and the last the head; of the ten of
sleeps<TAB>0                  CoNLL-U the second and the seventh

(S (NP the dog) (VP sleeps))  a sentence a line; a word belongs to the others of its smallest constituent
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from dragoman.errors import DataError
from dragoman.text.lines import read_lines


@dataclass(frozen=True)
class ParsedSentence:
    """Words, and which belong together."""

    words: tuple[str, ...]
    related: tuple[frozenset[int], ...]
    """Words that each word belongs to, counted from 0; none of a root."""

    @property
    def text(self) -> str:
        """Return the words with spaces between."""
        return " ".join(self.words)


def read_parses(path: str) -> list[ParsedSentence]:
    """Read a file of heads or of brackets.

    Raises:
        DataError: a file that cannot be read, a line of another form, or a head that is no word of its sentence.
    """
    lines = list(read_lines(path))
    first = next((line for line in lines if line.strip()), "")
    found = list(_brackets(lines, path) if first.lstrip().startswith("(") else _heads(lines, path))
    if not found:
        raise DataError(f"{path}: holds no parsed sentence")
    return found


def _heads(lines: list[str], path: str) -> Iterator[ParsedSentence]:
    rows: list[tuple[str, int, str]] = []
    for number, line in enumerate(chain(lines, [""]), 1):
        if line.startswith("#"):
            continue
        if line.strip():
            if row := _word(line, f"{path}:{number}"):
                rows.append(row)
        elif rows:
            for _, head, where in rows:
                if not 0 <= head <= len(rows):
                    raise DataError(f"{where}: head {head}, in a sentence of {len(rows)} words (0 is the root)")
            related = (frozenset({head - 1} if head else ()) for _, head, _ in rows)
            yield ParsedSentence(tuple(word for word, _, _ in rows), tuple(related))
            rows = []


def _word(line: str, where: str) -> tuple[str, int, str] | None:
    """Return a word, its head and its line; None of what CoNLL-U numbers as 1-2 or 1.1."""
    fields = [field.strip() for field in line.split("\t")]
    word, head = (fields[1], fields[6]) if len(fields) == 10 else (fields[0], fields[-1])
    if len(fields) == 10 and not fields[0].isdigit():
        return None
    if len(fields) < 2 or not word or not head.isdigit():
        raise DataError(f"{where}: a word, a tab and the number of its head expected: {line!r}")
    return word, int(head), where


def _brackets(lines: list[str], path: str) -> Iterator[ParsedSentence]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _bracketed(line, f"{path}:{number}")


def _bracketed(line: str, where: str) -> ParsedSentence:
    words: list[str] = []
    open_, spans = [], []
    label = False
    for part in re.findall(r"\(|\)|[^\s()]+", line):
        if part == "(":
            open_.append(len(words))
            label = True
        elif part == ")":
            if not open_:
                raise DataError(f"{where}: a bracket closes that was not opened")
            spans.append((open_.pop(), len(words)))
            label = False
        elif label:
            label = False  # the name of a constituent, or the tag of a word
        else:
            words.append(part)
    if open_ or not words:
        raise DataError(f"{where}: {'a bracket is not closed' if open_ else 'brackets without words'}")
    related = []
    for i in range(len(words)):
        around = [(end - start, start, end) for start, end in spans if start <= i < end and end - start > 1]
        _, start, end = min(around, default=(0, i, i))
        related.append(frozenset(range(start, end)) - {i})
    return ParsedSentence(tuple(words), tuple(related))

"""Sentences with a label for each word: columns as in CoNLL's shared tasks, or JSON lines."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, NamedTuple

from pydantic import PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.compressed import extension
from dragoman.text.lines import check_string, parse_json, read_lines
from dragoman.text.splits import Overlapping, SplitExamples, check_known, split_labelled_examples


class TaggedText(NamedTuple):
    """Sentence with a label for each token."""

    tokens: tuple[str, ...]
    """Words, and other tokens with a label."""
    labels: tuple[str, ...]
    """Labels, one per token."""

    @property
    def text(self) -> str:
        """Return the tokens with spaces between."""
        return " ".join(self.tokens)

    @property
    def source(self) -> str:
        """Return the text that near duplicates are found by."""
        return self.text

    target = source

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts that a tokenizer is trained on."""
        return (self.text,)

    @property
    def where(self) -> str:
        """Return the beginning of the text, for messages."""
        return repr(self.text[:60])


class Placed(NamedTuple):
    """Example and its position in a file: the lines of its words, or its own."""

    example: TaggedText
    places: Sequence[str]


# ---- files ----------------------------------------------------------------------------------------


_DOCUMENT = "-DOCSTART-"
"""Beginning of a line between documents."""


def _is_like_comment(line: str) -> bool:
    return line.startswith("#") and "\t" not in line


@config
class TaggedColumns:
    """Text file with a word and its label in each line."""

    path: str
    """Path of a text file with a word and its label in each line, between tabs or spaces, and an empty line between
    sentences. Lines that begin with -DOCSTART- or, in files with tabs, with # are skipped. Plain, .gz or .zst."""
    token: int = 0
    """Column of the word, counted from 0; from the end where negative."""
    label: int = -1
    """Column of its label."""

    def read(self) -> Iterator[Placed]:
        """Yield the examples."""
        words: list[tuple[str, str, str]] = []
        width: int | None = None
        has_comments = self._has_tabs()
        for number, line in enumerate(chain(read_lines(self.path), [""]), 1):
            if not line.strip():
                if words:
                    tokens, labels, places = zip(*words, strict=True)
                    yield Placed(TaggedText(tokens, labels), places)
                words = []
            elif not line.startswith(_DOCUMENT) and not (has_comments and _is_like_comment(line)):
                where = f"{self.path}:{number}"
                fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
                words.append((*self._word(fields, line, where), where))
                width = width or len(fields)
                if len(fields) != width:
                    raise DataError(
                        f"{where}: {width} columns expected as in the first row, {len(fields)} found: {line!r}"
                    )

    def _has_tabs(self) -> bool:
        """Return True if the first row that can be no comment has tabs: a word may begin with # where none has."""
        lines = (line for line in read_lines(self.path) if line.strip() and not line.startswith(_DOCUMENT))
        return next(("\t" in line for line in lines if not _is_like_comment(line)), False)

    def _word(self, fields: list[str], line: str, where: str) -> tuple[str, str]:
        needed = max(column + 1 if column >= 0 else -column for column in (self.token, self.label))
        if len(fields) < max(needed, 2):
            raise DataError(
                f"{where}: {max(needed, 2)} columns expected, a word and its label among them; found {line!r}"
            )
        token, label = fields[self.token], fields[self.label]
        if not token or not label:
            raise DataError(f"{where}: an empty {'label' if token else 'word'}: {line!r}")
        return token, label


@config
class TaggedLines:
    """JSON lines with words and their labels."""

    path: str
    """Path of a file with one JSON object a line, plain, .gz or .zst."""
    tokens: str = "tokens"
    """Key of the list of words."""
    labels: str = "labels"
    """Key of the list of their labels, of equal length: texts or integers."""

    def read(self) -> Iterator[Placed]:
        """Yield the examples."""
        for number, line in enumerate(read_lines(self.path), 1):
            if line and not line.isspace():
                where = f"{self.path}:{number}"
                record = parse_json(line, where)
                tokens = tuple(check_string(token, where) for token in self._list(record, self.tokens, (str,), where))
                labels = tuple(str(label) for label in self._list(record, self.labels, (str, int), where))
                if len(tokens) != len(labels):
                    raise DataError(f"{where}: {len(tokens)} words and {len(labels)} labels: each word needs its own")
                if not all(token.strip() for token in tokens) or not all(label.strip() for label in labels):
                    raise DataError(f"{where}: an empty word or label")
                if tokens:
                    yield Placed(TaggedText(tokens, labels), [where] * len(tokens))

    def _list(self, record: Any, key: str, kinds: tuple[type, ...], where: str) -> list[Any]:
        found = record.get(key) if isinstance(record, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, kinds) for entry in found):
            raise DataError(
                f"{where}: expected an object with {self.tokens!r}: a list of words, {self.labels!r}: one of labels"
            )
        return found


TaggedSource = Annotated[TaggedColumns | TaggedLines, OneOf()]


def read_tagged(source: TaggedSource, known: Sequence[str] | None = None) -> list[TaggedText]:
    """Read the examples of a file.

    Raises:
        DataError: a file that cannot be read or holds no sentence, a word without a label, or with one that is not
            ``known``.
    """
    examples = []
    for example, places in source.read():
        for label, where in zip(example.labels, places, strict=True):
            check_known(label, known, f"{where}: a word")
        examples.append(example)
    if not examples:
        raise DataError(f"{source.path}: holds no sentence with labels")
    return examples


def guess_tagged(path: str) -> TaggedSource:
    """Choose the format of ``path`` by its extension: JSON lines or columns.

    Raises:
        ConfigError: an unknown extension.
    """
    match extension(path):
        case ".jsonl" | ".ndjson":
            return TaggedLines(path=path)
        case ".txt" | ".tsv" | ".conll" | ".iob" | ".bio":
            return TaggedColumns(path=path)
    raise ConfigError(f"{path}: its name does not show its format: name it .conll, .tsv, .txt or .jsonl")


# ---- a run's examples -----------------------------------------------------------------------------


@config
class TaggedTexts:
    """Labelled sentences to train, validate and test a tagger on."""

    train: tuple[TaggedSource, ...]
    """Sources of training sentences, read in order."""
    valid: TaggedSource | None = None
    """Sentences to choose the best checkpoint by; without them, some of the training sentences are held out."""
    test: TaggedSource | None = None
    """Sentences for the final figures only; without them, some of the training sentences are held out."""
    hold_out: HoldOut = HoldOut(test=500, valid=500)
    """Number of training sentences to hold out as test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """Treatment of training sentences that are like one of a given validation or test set."""
    longest: PositiveInt = 256
    """Largest number of tokens of a sentence that are read together; a longer one is split between words and read in
    parts."""

    def split(self) -> SplitExamples[TaggedText]:
        """Read the sources and split them.

        Raises:
            DataError: a file that cannot be read, a label that training did not have, or too few examples.
        """
        sources = self.train, self.valid, self.test
        return split_labelled_examples(
            sources, read_tagged, lambda example: example.labels, self.hold_out, self.overlap
        )

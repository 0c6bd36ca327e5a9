"""Texts with one label each, in tables, JSON lines, or lines that begin with the label."""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from pydantic import PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.cleaning.split import HoldOut
from dragoman.text.compressed import extension
from dragoman.text.formats.columns import labelled_columns, strip_names
from dragoman.text.formats.pairs import Table, read_pairs
from dragoman.text.formats.tables import table_rows
from dragoman.text.lines import check_string, parse_json, read_lines
from dragoman.text.splits import Overlapping, SplitExamples, check_known, split_labelled_examples


class LabelledText(NamedTuple):
    """Text with its label."""

    text: str
    label: str

    @property
    def given(self) -> str:
        """Return the text that the model reads."""
        return self.text

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the texts that a tokenizer is trained on."""
        return (self.text,)

    @property
    def where(self) -> str:
        """Return the beginning of the text, for messages."""
        return repr(self.text[:60])

    @property
    def source(self) -> str:
        """Return the text that near duplicates are found by, without the label."""
        return self.text

    target = source


# ---- files ----------------------------------------------------------------------------------------


@config
class LabelledTable:
    """Table with a column of texts and one of labels."""

    path: str
    """Path of a tab-separated (.tsv, taken literally) or comma-separated file (.csv, with quotes), plain, .gz or
    .zst."""
    text: str | int = "text"
    """Column of the text: its name in the header row, or its index from 0."""
    label: str | int = "label"
    """Column of the label."""
    header: bool = False
    """True if the first row only names the columns; a column given by name implies it."""

    def read(self) -> Iterator[LabelledText]:
        """Yield the examples."""
        for pair in read_pairs(Table(path=self.path, source=self.text, target=self.label, header=self.header)):
            yield LabelledText(pair.source, pair.target.strip())


@config
class LabelledLines:
    """JSON lines with a text and a label."""

    path: str
    """Path of a file with one JSON object a line, plain, .gz or .zst."""
    text: str = "text"
    """Key of the text."""
    label: str = "label"
    """Key of the label: a text, a number, true or false."""

    def read(self) -> Iterator[LabelledText]:
        """Yield the examples."""
        for number, line in enumerate(read_lines(self.path), 1):
            if line and not line.isspace():
                where = f"{self.path}:{number}"
                record = parse_json(line, where)
                for key, kinds in ((self.text, str), (self.label, (str, int, bool))):
                    if not isinstance(record, dict) or not isinstance(record.get(key), kinds):
                        raise DataError(
                            f"{where}: expected an object with {self.text!r}: a text, {self.label!r}: its label"
                        )
                label = record[self.label]
                label = str(label).lower() if isinstance(label, bool) else str(label)
                yield LabelledText(check_string(record[self.text], where), label.strip())


@config
class LabelFirst:
    """Lines that begin with the label."""

    path: str
    """Path of a text file, each line a label, a space or tab, and the text."""

    def read(self) -> Iterator[LabelledText]:
        """Yield the examples."""
        for number, line in enumerate(read_lines(self.path), 1):
            if line and not line.isspace():
                label, *text = line.split(maxsplit=1)
                if not text:
                    raise DataError(f"{self.path}:{number}: a label and a text expected, only {label!r} found")
                yield LabelledText(text[0], label)


LabelledSource = Annotated[LabelledTable | LabelledLines | LabelFirst, OneOf()]


def read_labelled(source: LabelledSource, known: Sequence[str] | None = None) -> list[LabelledText]:
    """Read the examples of a file; those without text are skipped.

    Raises:
        DataError: a file that cannot be read or holds no example, a row without a label, or with one that is not
            ``known``.
    """
    examples = []
    for number, example in enumerate(source.read(), 1):
        if not example.label:
            raise DataError(f"{source.path}: example {number} has no label: {example.text[:60]!r}")
        check_known(example.label, known, f"{source.path}: example {number}")
        if example.text.strip():
            examples.append(example)
    if not examples:
        raise DataError(f"{source.path}: holds no labelled text")
    return examples


def guess_labelled(path: str) -> LabelledSource:
    """Choose the format of ``path`` by its extension. A table has columns that its first row names text and label
    (sentence, class, ...), or else two, the text in the first and the label in the second.

    Raises:
        ConfigError: an unknown extension.
        DataError: a table with more columns and without clear names.
    """
    match extension(path):
        case ".tsv" | ".csv":
            return _guess_table(path)
        case ".jsonl" | ".ndjson":
            return LabelledLines(path=path)
        case ".txt":
            return LabelFirst(path=path)
    raise ConfigError(f"{path}: its name does not show its format: name it .tsv, .csv, .jsonl, or .txt (label first)")


def _guess_table(path: str) -> LabelledTable:
    _, first = next(table_rows(path), (1, ()))
    if named := labelled_columns(first):
        names = strip_names(first)
        return LabelledTable(path=path, text=names[named.first], label=names[named.second])
    if len(first) > 2:
        raise DataError(
            f"{path}:1: {len(first)} columns, but which are text and label is unknown: name them text and label in "
            f"the first row; its fields are {', '.join(repr(field[:30]) for field in first[:6])}"
        )
    return LabelledTable(path=path, text=0, label=1)


# ---- a run's text ---------------------------------------------------------------------------------


@config
class LabelledTexts:
    """Labelled texts to train, validate and test a classifier on."""

    train: tuple[LabelledSource, ...]
    """Sources of training examples, read in order."""
    valid: LabelledSource | None = None
    """Examples to choose the best checkpoint by; without them, some of the training text is held out."""
    test: LabelledSource | None = None
    """Examples for the final figures only; without them, some of the training text is held out."""
    hold_out: HoldOut = HoldOut(test=500, valid=500)
    """Number of training examples to hold out as test and validation set, where none is given above."""
    overlap: Overlapping = "drop"
    """Treatment of training texts that are like one of a given validation or test set."""
    longest: PositiveInt = 256
    """Largest number of tokens of a text that are read; the rest is truncated."""

    def split(self) -> SplitExamples[LabelledText]:
        """Read the sources and split them.

        Raises:
            DataError: a file that cannot be read, a label that training did not have, or too few examples.
        """
        sources = self.train, self.valid, self.test
        return split_labelled_examples(
            sources, read_labelled, lambda example: [example.label], self.hold_out, self.overlap
        )

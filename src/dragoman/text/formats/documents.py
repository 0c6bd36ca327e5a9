"""Plain text as documents, for training language models, in files of text or of JSON lines."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Annotated, NamedTuple

from pydantic import Field, PositiveInt

from dragoman.config import OneOf, config
from dragoman.errors import DataError
from dragoman.text.cleaning.split import HoldOut, PairSplit
from dragoman.text.compressed import extension
from dragoman.text.formats.kinds import check_text_kind
from dragoman.text.formats.pairs import JsonLines, read_pairs
from dragoman.text.lines import read_lines
from dragoman.text.splits import Overlapping, SplitExamples, split_examples


class Document(NamedTuple):
    """Document of plain text."""

    text: str

    @property
    def source(self) -> str:
        """Return the text that near duplicates are found by."""
        return self.text

    target = source


@config
class WholeFiles:
    """Whole files: each file is one document."""

    def split_documents(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the documents of a file's lines."""
        yield "\n".join(lines)


@config
class BlankLines:
    """Blank lines as separators between documents."""

    def split_documents(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the documents of a file's lines."""
        return _split_at(lines, lambda line: not line.strip())


@config
class Marker:
    """Marker as separator: a line of its own, such as <|endoftext|>, between documents."""

    text: str = "<|endoftext|>"

    def split_documents(self, lines: Iterator[str]) -> Iterator[str]:
        """Yield the documents of a file's lines."""
        return _split_at(lines, lambda line: line.strip() == self.text)


DocumentSeparator = Annotated[WholeFiles | BlankLines | Marker, OneOf()]


def _split_at(lines: Iterable[str], is_separator: Callable[[str], bool]) -> Iterator[str]:
    document: list[str] = []
    for line in lines:
        if is_separator(line):
            yield "\n".join(document)
            document = []
        else:
            document.append(line)
    yield "\n".join(document)


def read_documents(path: str, separator: DocumentSeparator, key: str) -> Iterator[Document]:
    """Yield the documents of a file, plain, .gz or .zst; empty ones are skipped. A .jsonl file has one in each line,
    under ``key``.

    Raises:
        DataError: a file that is missing, damaged, without a document, or of a kind that is no text.
    """
    if extension(path) in (".jsonl", ".ndjson"):
        texts = (pair.source for pair in read_pairs(JsonLines(path=path, source=key, target=key)))
    else:
        check_text_kind(path)
        texts = separator.split_documents(read_lines(path))
    found = False
    for text in texts:
        if text.strip():
            found = True
            yield Document(text)
    if not found:
        raise DataError(f"{path}: holds no text")


# ---- a run's text ---------------------------------------------------------------------------------


@config
class Tail:
    """End of all text, in the order of the files: for text whose parts follow one another, such as a book."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Fraction of the characters that is held out."""


@config
class Drawn:
    """Random documents; similar ones are kept out of training."""

    documents: PositiveInt = 200
    """Number of documents held out."""
    near: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    """Similarity from which a document counts as a near duplicate, 0 to 1; None for exact duplicates only."""
    seed: int = 1
    """Seed of the draw."""


@config
class Texts:
    """Plain text to train a language model on."""

    files: tuple[str, ...]
    """Paths of text files, or .jsonl; plain, .gz or .zst."""
    documents: DocumentSeparator = WholeFiles()
    """Separator of documents in a text file."""
    key: str = "text"
    """Key of the text in JSON lines; a dot leads into an object."""
    valid: tuple[str, ...] = ()
    """Paths of files to choose the best checkpoint by; without them some text is held out."""
    overlap: Overlapping = "drop"
    """Treatment of training documents that are like one of the given validation files."""
    hold_out: Annotated[Tail | Drawn, OneOf()] = Tail()
    """Choice of the validation text where no files are given for it."""

    def read(self, paths: Iterable[str]) -> Iterator[Document]:
        """Yield the documents of files."""
        for path in paths:
            yield from read_documents(path, self.documents, self.key)

    def split(self) -> SplitExamples[Document]:
        """Return documents to learn from and documents to validate with.

        Raises:
            DataError: a file that cannot be read, or too little text to hold any out.
        """
        documents = list(self.read(self.files))
        if not documents:
            raise DataError("data.files: names no file to train on")
        if not self.valid and isinstance(self.hold_out, Tail):
            split = PairSplit(*_without_tail(documents, self.hold_out.share), test=[], removed={})
            return SplitExamples(split, {}, [])
        asked = HoldOut(test=0)
        if isinstance(drawn := self.hold_out, Drawn):
            asked = HoldOut(test=0, valid=drawn.documents, near=drawn.near, seed=drawn.seed)
        given = list(self.read(self.valid)) if self.valid else None
        found = split_examples(documents, given, None, asked, self.overlap)
        note = found.note and (
            f"small text: {asked.valid:,} of {len(documents):,} documents would leave too few to train on; held "
            f"out instead: data.hold_out.documents={len(found.split.valid)}"
        )
        return replace(found, note=note)


def _without_tail(documents: list[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Split off the tail; the document in which it begins is split in two."""
    left = int((1 - fraction) * sum(len(document.text) for document in documents))
    for i, document in enumerate(documents):
        if left < len(document.text):
            halves = Document(document.text[:left]), Document(document.text[left:])
            return [*documents[:i], *halves[: left > 0]], [halves[1], *documents[i + 1 :]]
        left -= len(document.text)
    raise AssertionError("a fraction below 1 leaves a tail")

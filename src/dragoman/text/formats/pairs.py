"""Parallel text in files, read as sentence pairs: text files, tables, JSON lines, and translators' formats.

Each format is a config class and a generator, here or in a file of its own; the union at the end lists them. Nothing is
guessed: a row that cannot be read is an error that names the file and the row.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Protocol

from dragoman.config import OneOf, config
from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.bilingual import CATALOG, QT, BilingualFile, read_bilingual_file
from dragoman.text.formats.columns import (
    Pairing,
    is_header,
    note_columns,
    strip_names,
    text_columns,
    unknown_columns_message,
)
from dragoman.text.formats.json_lines import JsonLines, read_json_lines
from dragoman.text.formats.keyed import Keyed, read_keyed
from dragoman.text.formats.kinds import kind_of_file
from dragoman.text.formats.mo import read_mo
from dragoman.text.formats.parquet import Parquet, read_parquet
from dragoman.text.formats.po import Gettext, read_po
from dragoman.text.formats.tables import SPLITTERS, first_row, is_not_empty, split_rows
from dragoman.text.formats.tmx import Tmx, read_tmx
from dragoman.text.formats.xliff import Xliff, read_xliff
from dragoman.text.lines import AnnotatedPair, DocumentEnds, Pair, read_lines

__all__ = [
    "BilingualFile",
    "Gettext",
    "JsonLines",
    "Keyed",
    "Pair",
    "PairFile",
    "PairSource",
    "Parquet",
    "Part",
    "Table",
    "TextFiles",
    "Tmx",
    "Xliff",
    "guess_source",
    "may_hold_out",
    "names_of",
    "prefix_of",
    "read_documents",
    "read_lines",
    "read_pairs",
    "sources_by_path",
    "tags_of",
]

# ---- two text files -------------------------------------------------------------------------------


@config
class TextFiles:
    source: str
    """Path of a text file with one sentence a line, plain, .gz or .zst."""
    target: str
    """Path of its translation, line for line."""


Documents = Iterator[Pair | None]
"""Pairs of a source, and None where a document ends; empty lines already end one."""


def _read_text_files(cfg: TextFiles) -> Documents:
    sources, targets, aligned = read_lines(cfg.source), read_lines(cfg.target), 0
    for source in sources:
        target = next(targets, None)
        if target is None:
            raise _unequal(cfg, aligned + 1 + _count(sources), aligned)
        yield Pair(source, target)
        aligned += 1
    if extra := _count(targets):
        raise _unequal(cfg, aligned, aligned + extra)


def _unequal(cfg: TextFiles, sources: int, targets: int) -> DataError:
    return DataError(
        f"{cfg.source} has {sources:,} lines and {cfg.target} has {targets:,}: "
        "line n of one must translate line n of the other, so find the missing line"
    )


def _count(lines: Iterator[str]) -> int:
    return sum(1 for _ in lines)


# ---- tables ---------------------------------------------------------------------------------------


@config
class Table:
    """Table with a column of sources and one of targets."""

    path: str
    """Path of a .tsv file (tabs taken literally) or .csv file (quotes; commas, semicolons or tabs), or .gz, .zst."""
    source: str | int | None = None
    """Column of the source: its name in the header, or its index from 0; None for the first of the two with text."""
    target: str | int | None = None
    """Column of the target; None for the second of them."""
    header: bool | None = None
    """True if the first row only names the columns; None to decide by its names."""
    document: str | int | None = None
    """Column with the document of a row; None where empty lines separate documents, if anything does."""


def _read_table(cfg: Table) -> Documents:
    rows = split_rows(cfg.path)
    passed, first = first_row(rows)
    header = _has_header(cfg, first)
    source, target, *document = (_column(cfg, column, first, header) for column in _select_columns(cfg, first))
    if source == target:
        raise ConfigError(f"{cfg.path}: source and target are the same column, {source}: name two")
    boundaries = DocumentEnds()
    notes = [column for column in note_columns(first) if column not in (source, target)] if header else []
    for row in rows if header else itertools.chain([None] * passed, [(1, first)], rows):
        if row is None or not is_not_empty(row):
            yield None
            continue
        fields = row[1]
        if document and boundaries.starts_new(fields[document[0]]):
            yield None
        yield AnnotatedPair.of(fields[source], fields[target], [fields[column] for column in notes])


def _has_header(cfg: Table, first: Sequence[str]) -> bool:
    by_name = [column for column in (cfg.source, cfg.target, cfg.document) if isinstance(column, str)]
    if cfg.header is None:
        return bool(by_name) or is_header(first)
    return cfg.header or bool(by_name)


def _select_columns(cfg: Table, first: Sequence[str]) -> list[str | int]:
    """Return the columns of a table in the order source, target, document.

    Raises:
        DataError: none are given, and there are more than two without clear names.
    """
    named = text_columns(first) if cfg.header is not False else None
    if cfg.source is not None and cfg.target is not None:
        pairing = Pairing(0, 0)
    elif (pairing := named) is None:
        if len(first) > 2:
            raise DataError(f"{cfg.path}:1: {unknown_columns_message(first)}")
        pairing = Pairing(0, 1)
    chosen = pairing.first if cfg.source is None else cfg.source, pairing.second if cfg.target is None else cfg.target
    return [*chosen, *([] if cfg.document is None else [cfg.document])]


def _column(cfg: Table, column: str | int, first: Sequence[str], header: bool) -> int:
    if isinstance(column, int):
        if column < 0:
            raise ConfigError(f"{cfg.path}: column {column}: columns are counted from 0")
        if first and column >= len(first):
            raise DataError(f"{cfg.path}:1: no column {column}: there are {len(first)}, counted from 0")
        return column
    names = strip_names(first) if header else []
    if names.count(column) > 1:
        raise DataError(f"{cfg.path}:1: {names.count(column)} columns are named {column!r}: give their numbers, from 0")
    if column not in names:
        raise DataError(f"{cfg.path}:1: no column {column!r} in the header: {', '.join(names) or 'it is empty'}")
    return names.index(column)


# ---- all of them ----------------------------------------------------------------------------------

PairFile = Annotated[TextFiles | Table | JsonLines | Keyed | Parquet | Gettext | Xliff | Tmx | BilingualFile, OneOf()]


@config
class Part:
    name: str | None = None
    """Name in mixtures and reports; None for the name of its file."""
    pairs: PairFile
    """Files with the pairs."""
    tags: tuple[str, ...] = ()
    """Words added before each source text as tokens of their own, such as 2de (translate to German) or bt (made by
    back-translation); dragoman translate --tag adds them."""
    prefix: str = ""
    """Text added before each source after cleaning, such as "translate English to German: "; add it yourself in use."""
    hold_out: bool = True
    """True if its pairs may be held out for validation and test; false for machine-translated text."""


PairSource = Annotated[
    TextFiles | Table | JsonLines | Keyed | Parquet | Gettext | Xliff | Tmx | BilingualFile | Part, OneOf()
]


def read_pairs(source: PairSource) -> Iterator[Pair]:
    """Yield the sentence pairs of a source, in its order, as they are in the files.

    Raises:
        DataError: a file that is missing, empty or damaged, or a row that cannot be read; the message names the place.
        ConfigError: a source whose settings contradict its files.
    """
    return (pair for pair in read_documents(source) if pair is not None)


def read_documents(source: PairSource) -> Documents:
    """Yield the pairs of a source, and None where a document ends.

    Raises:
        DataError, ConfigError: as ``read_pairs``.
    """
    read = False
    for pair in _reader(source):
        read = read or pair is not None
        yield pair
    if not read:
        raise DataError(f"{_name(source)}: holds no sentence pairs")


def _reader(source: PairSource) -> Documents:
    match source:
        case Part():
            return _reader(source.pairs)
        case TextFiles():
            return _read_text_files(source)
        case Table():
            return _read_table(source)
        case JsonLines():
            return read_json_lines(source)
        case Keyed():
            return read_keyed(source)
        case Parquet():
            return read_parquet(source)
        case _:
            return _read_translations(source)


def _read_translations(source: Gettext | Xliff | Tmx | BilingualFile) -> Documents:
    """Yield the pairs of a file of translation tools."""
    match source:
        case Gettext():
            return read_mo(source.path) if extension(source.path) == ".mo" else read_po(source.path)
        case Xliff():
            return read_xliff(source.path)
        case Tmx():
            return read_tmx(source)
        case BilingualFile():
            return read_bilingual_file(source)


def _name(source: PairSource) -> str:
    match source:
        case Part():
            return _name(source.pairs)
        case TextFiles():
            return f"{source.source}, {source.target}"
        case Keyed():
            return source.root
        case _:
            return source.path


def names_of(sources: Sequence[PairSource]) -> list[str]:
    """Return a name for each source: its own, or its file's up to the first dot; a number is appended to repeated ones.

    Raises:
        ConfigError: a name given twice, or one that is empty or holds a tab or line end.
    """
    given = [source.name for source in sources if isinstance(source, Part) and source.name is not None]
    for name in given:
        if not name.strip() or not name.isprintable():
            raise ConfigError(f"data.train: {name!r} is not a name for a source: use letters and digits")
        if given.count(name) > 1:
            raise ConfigError(f"data.train: two sources are named {name!r}: give each a name of its own")
    names: list[str] = []
    for source in sources:
        own = source.name if isinstance(source, Part) else None
        names.append(own if own is not None else _free(_short_name(source), {*given, *names}))
    return names


class _Sources(Protocol):
    """Configuration with training sources and given sets."""

    @property
    def train(self) -> tuple[PairSource, ...]: ...
    @property
    def valid(self) -> PairSource | None: ...


def sources_by_path(data: _Sources) -> list[tuple[str, PairSource]]:
    """Return every source of a run's ``data`` with its path."""
    given = [(f"data.{name}", getattr(data, name, None)) for name in ("valid", "test")]
    train = [(f"data.train.{number}", source) for number, source in enumerate(data.train)]
    return train + [(path, source) for path, source in given if source is not None]


def tags_of(source: PairSource) -> tuple[str, ...]:
    return source.tags if isinstance(source, Part) else ()


def prefix_of(source: PairSource) -> str:
    return source.prefix if isinstance(source, Part) else ""


def may_hold_out(source: PairSource) -> bool:
    return source.hold_out if isinstance(source, Part) else True


def _short_name(source: PairSource) -> str:
    return Path(_name(source).partition(",")[0]).name.partition(".")[0] or "source"


def _free(name: str, taken: set[str]) -> str:
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


ColumnNames = tuple[str, str]
"""Source and target by name or index (languages, for a TMX file), as given beside a file."""


def guess_source(path: str, columns: ColumnNames | None = None) -> PairSource:
    """Choose the format of ``path`` by its extension; ``corpus.en,corpus.de`` names two text files.

    A table is read by ``columns``, by the names in its first row, or by the order of its only two columns.

    Raises:
        ConfigError: an unknown extension, or ``columns`` are given for a kind that has none.
        DataError: a table that cannot be opened, or one whose columns are unknown.
    """
    first, comma, second = path.partition(",")
    if comma and not os.path.exists(path):
        source: PairSource = _guess_text_files(first.strip(), second.strip())
    elif extension(path) in SPLITTERS:
        return _guess_table(path, columns)
    elif reader := _KINDS.get(extension(path)):
        if columns is not None and (reader in (JsonLines, Parquet, Tmx) or extension(path) == CATALOG):
            return reader(path=path, source=columns[0], target=columns[1])  # pyright: ignore[reportCallIssue]
        source = reader(path=path)
    else:
        kind = kind_of_file(path)
        if not kind and not os.path.exists(path):
            raise ConfigError(f"{path}: no such file or folder")
        what = f"{kind}, which holds no pairs" if kind else "its name does not tell what it is"
        raise ConfigError(
            f"{path}: {what}: name it {', '.join([*SPLITTERS, *_KINDS])} (or that and .gz or .zst), or give two text "
            "files as in corpus.en,corpus.de"
        )
    if columns is not None:
        raise ConfigError(f"{path}: has no columns: --columns is for tables, JSON lines, Parquet, TMX and .xcstrings")
    return source


def _guess_text_files(source: str, target: str) -> TextFiles:
    for path in (source, target):
        if kind := kind_of_file(path):
            raise ConfigError(
                f"{path}: {kind}: two text files are expected, whose line n translates line n of the other"
            )
    return TextFiles(source=source, target=target)


def _guess_table(path: str, columns: ColumnNames | None) -> Table:
    if columns is not None:
        source, target = (int(column) if column.isdecimal() else column for column in columns)
        return Table(path=path, source=source, target=target)
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which can be read only once
        return Table(path=path)
    _, first = first_row(split_rows(path))
    _select_columns(Table(path=path), first)
    if (named := text_columns(first)) is None:
        return Table(path=path)
    names = strip_names(first)
    return Table(path=path, source=names[named.first], target=names[named.second])


_KINDS: dict[str, type[JsonLines | Parquet | Gettext | Xliff | Tmx | BilingualFile]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".parquet": Parquet,
    ".po": Gettext,
    ".mo": Gettext,
    ".xlf": Xliff,
    ".xliff": Xliff,
    ".tmx": Tmx,
    QT: BilingualFile,
    CATALOG: BilingualFile,
}
PAIR_ENDINGS = (*SPLITTERS, *_KINDS)
"""Extensions of files with pairs, without that of compression."""

"""Training rows of tasks other than translation that a program gives: texts, texts with labels, words with labels, and
prompts with answers; checked one by one, and written where a run can read them."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dragoman.api.rows import (
    SOURCE_AND_TARGET,
    Columns,
    check_columns,
    check_file_columns,
    column_names,
    described,
    is_missing,
    row_values,
    table_rows,
    text_of,
)
from dragoman.config import kind_of, to_dict
from dragoman.errors import ConfigError, DataError
from dragoman.text.compressed import extension
from dragoman.text.formats.documents import Texts
from dragoman.text.formats.instructions import Instructions
from dragoman.text.formats.labelled import LabelledLines, LabelledTable, LabelledTexts, guess_labelled
from dragoman.text.formats.pairs import JsonLines
from dragoman.text.formats.several import guess_sources
from dragoman.text.formats.tables import SPLITTERS
from dragoman.text.formats.tagged import TaggedLines, TaggedTexts, guess_tagged

Value = Callable[[Any, str], Any]
"""Function from a value and its place, for messages, to what is written; raises DataError."""


@dataclass(frozen=True)
class Field:
    """Field of a row."""

    name: str
    """Key that it is written under."""
    columns: tuple[str, ...]
    """Names of columns that hold it."""
    value: Value


@dataclass(frozen=True)
class RowKind:
    """Rows of a task: their fields, and how a run file has them."""

    argument: str
    """Argument of ``train`` that takes them."""
    data: str
    """Kind of ``data`` in a run file."""
    preset: str
    """Preset where none is named."""
    fields: tuple[Field, ...]
    sources: Callable[[str, Columns | None], list[dict[str, Any]]]
    """Function from the path of a file, and the names of its columns, to the sources that a run file has for it."""
    source_of_rows: Callable[[str], dict[str, Any]]
    """Function from the path of the rows, as JSON lines, to their source."""

    @property
    def shape(self) -> str:
        """Return the form of a row, for messages."""
        names = ", ".join(field.name for field in self.fields)
        return f"a {names}" if len(self.fields) == 1 else f"({names})"

    def data_of(self, train: list[Any], valid: list[Any], test: list[Any]) -> dict[str, Any]:
        """Return ``data`` of a run file with these sources.

        Raises:
            ConfigError: a test set where the task has none.
        """
        if test and self.data in (_TEXTS, _INSTRUCTIONS):
            raise ConfigError(f"test: {self.argument} have no test set: give it to evaluate when the run has finished")
        if self.data == _TEXTS:
            files = {"files": [one["path"] for one in train]} if train else {}
            return {"kind": _TEXTS} | files | ({"valid": [one["path"] for one in valid]} if valid else {})
        found: dict[str, Any] = {"kind": self.data} | ({"train": train} if train else {})
        return found | {name: part[0] for name, part in (("valid", valid), ("test", test)) if part}


# ---- values ---------------------------------------------------------------------------------------------


def _text(value: Any, where: str) -> str:
    return text_of(value, where)


def _label(value: Any, where: str) -> str | int | bool:
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value  # of NumPy
    if isinstance(value, bool | int):
        return value
    if not isinstance(value, str):
        remedy = "leave out rows without a label" if is_missing(value) else "labels are texts, integers or booleans"
        raise DataError(f"{where} is {described(value)}: {remedy}")
    if not value.strip():
        raise DataError(f"{where} is empty")
    return text_of(value, where)


def _list_of(one: Value, what: str) -> Value:
    def values(value: Any, where: str) -> list[Any]:
        value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy, PyTorch
        if isinstance(value, str | bytes | Mapping | Set) or not isinstance(value, Sequence):
            raise DataError(f"{where} is {described(value)}: a list of {what} is expected")
        return [one(entry, f"{where}, {number}") for number, entry in enumerate(value, 1)]

    return values


def _word(value: Any, where: str) -> str:
    if not text_of(value, where).strip():
        raise DataError(f"{where} is an empty word")
    return value


# ---- files ----------------------------------------------------------------------------------------------


def _labelled_sources(path: str, columns: Columns | None) -> list[dict[str, Any]]:
    if (named := check_columns(columns, ("text", "label"))) is None:
        return [to_dict(guess_labelled(path))]
    if extension(path) in SPLITTERS:
        return [to_dict(LabelledTable(path=path, text=named[0], label=named[1]))]
    text, label = named
    if not isinstance(text, str) or not isinstance(label, str):
        raise ConfigError(f"columns: {path} has keys, which have no order: give two names, got {columns!r}")
    return [to_dict(LabelledLines(path=path, text=text, label=label))]


def _without_columns(source: Callable[[str], dict[str, Any]]) -> Callable[[str, Columns | None], list[Any]]:
    """Return the sources of files whose columns cannot be named."""

    def sources(path: str, columns: Columns | None) -> list[dict[str, Any]]:
        if columns is not None:
            raise ConfigError(f"columns: {path} is read as it is: leave it out, or give its rows")
        return [source(path)]

    return sources


# ---- kinds ----------------------------------------------------------------------------------------------

_TEXTS, _INSTRUCTIONS = kind_of(Texts), kind_of(Instructions)
TEXT = ("text", "content", "document", "body", "sentence", "review", "tweet", "comment", "utterance", "query", "input")
LABEL = ("label", "class", "category", "sentiment", "intent", "topic", "target", "tag", "rating", "emotion", "y")
TEXTS = RowKind(
    "texts",
    _TEXTS,
    "lm-tiny",
    (Field("text", TEXT, _text),),
    _without_columns(lambda path: {"path": path}),
    lambda path: {"path": path},
)
LABELLED = RowKind(
    "labelled",
    kind_of(LabelledTexts),
    "classifier-tiny",
    (Field("text", TEXT, _text), Field("label", LABEL, _label)),
    _labelled_sources,
    lambda path: to_dict(LabelledLines(path=path)),
)
TAGGED = RowKind(
    "tagged",
    kind_of(TaggedTexts),
    "tagger-small",
    (
        Field("tokens", ("tokens", "words"), _list_of(_word, "words")),
        Field("labels", ("labels", "tags", "ner_tags", "pos_tags", "chunk_tags"), _list_of(_label, "labels")),
    ),
    _without_columns(lambda path: to_dict(guess_tagged(path))),
    lambda path: to_dict(TaggedLines(path=path)),
)
INSTRUCTIONS = RowKind(
    "instructions",
    _INSTRUCTIONS,
    "lm-tiny",
    (
        Field("source", ("prompt", "instruction", "question", "source", "input"), _text),
        Field("target", ("answer", "response", "output", "completion", "target"), _text),
    ),
    lambda path, columns: [
        to_dict(source) for source in guess_sources(path, check_file_columns(columns, SOURCE_AND_TARGET))
    ],
    lambda path: to_dict(JsonLines(path=path)),
)


# ---- reading and writing --------------------------------------------------------------------------------


def write_task_rows(given: Any, kind: RowKind, argument: str, path: Path, columns: Columns | None = None) -> int:
    """Write rows as JSON lines; return how many there are.

    Args:
        given: an iterable of rows (tuples, lists or mappings; texts alone for ``TEXTS``), a mapping of columns to
            lists, or a table of pandas, polars, pyarrow or Hugging Face's ``datasets``.
        argument: its name, for messages.
        columns: the columns of the fields; by default as their names tell.

    Raises:
        TypeError: no rows at all.
        ConfigError: ``columns`` that are not as many as the fields.
        DataError: a row that does not fit, named by its number from 1; columns that are not there; or no row.
    """
    count = 0
    columns = check_columns(columns, [field.name for field in kind.fields])
    with path.open("w", encoding="utf-8") as file:
        for count, row in enumerate(_rows(given, kind, argument, columns), 1):
            file.write(json.dumps(_record(row, kind, f"{argument}: row {count}"), ensure_ascii=False) + "\n")
    if not count:
        ended = " (an iterator gives its rows only once)" if isinstance(given, Iterator) else ""
        raise DataError(f"{argument}: there are no rows{ended}")
    return count


def _record(row: Sequence[Any], kind: RowKind, where: str) -> dict[str, Any]:
    record = {
        field.name: field.value(value, f"{where}: the {field.name}")
        for field, value in zip(kind.fields, row, strict=True)
    }
    sizes = {len(value) for value in record.values() if isinstance(value, list)}
    if len(sizes) > 1:
        counts = " and ".join(f"{len(value)} {name}" for name, value in record.items())
        raise DataError(f"{where}: {counts}: each word needs its own label")
    return record


def _rows(given: Any, kind: RowKind, argument: str, columns: Columns | None) -> Iterator[Sequence[Any]]:
    """Yield the fields of each row, in their order."""
    if (names := column_names(given, argument)) is not None:
        chosen = _chosen(names, argument, kind, columns)
        rows = ((row,) if len(chosen) == 1 else row for row in table_rows(given, chosen, argument))
        classes = _class_names(given, chosen)
        yield from (rows if classes is None else ((*row[:-1], _named_classes(row[-1], classes)) for row in rows))
        return
    if isinstance(given, str | bytes | Set) or not isinstance(given, Iterable):
        what = "a set has no order" if isinstance(given, Set) else f"got {described(given)}"
        raise TypeError(f"{argument}: an iterable of {kind.shape} rows, a data frame or paths are expected: {what}")
    told = partial(_chosen, kind=kind)
    yield from row_values(given, argument, columns, told, fields=len(kind.fields), shape=kind.shape)


def _chosen(names: Sequence[Any], where: str, kind: RowKind, columns: Columns | None = None) -> list[Any]:
    """Return the columns of the fields.

    Raises:
        DataError: they are not there, or cannot be told from their names.
    """
    known, wanted = ", ".join(map(repr, names)) or "none", [field.name for field in kind.fields]
    if columns is not None:
        if missing := [name for name in columns if name not in names]:
            raise DataError(f"{where}: no column {missing[0]!r}: there are {known}")
        return list(columns)
    if set(wanted) <= set(names):
        return wanted
    found = [[name for name in names if str(name).casefold() in field.columns] for field in kind.fields]
    remaining = [name for name in names if not any(name in some for some in found)]
    if len(names) == len(wanted):
        found = [some or [remaining.pop(0)] if some or remaining else [] for some in found]
    if all(len(some) == 1 for some in found):
        return [some[0] for some in found]
    fields = ", ".join(map(repr, wanted))
    unclear = [
        f"{' and '.join(map(repr, some))} may be {name!r}"
        for name, some in zip(wanted, found, strict=True)
        if len(some) > 1
    ]
    why = unclear[0] if unclear else f"there are {known}"
    raise DataError(f"{where}: name the columns of {fields}: columns=(...); {why}")


def _class_names(given: Any, chosen: Sequence[Any]) -> list[str] | None:
    """Return the names of the classes that a data set of Hugging Face stores as numbers."""
    feature: Any = (getattr(given, "features", None) or {}).get(chosen[-1])
    feature = getattr(feature, "feature", feature)
    return list(feature.names) if feature is not None and hasattr(feature, "names") else None


def _named_classes(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a class, or those of a list; what is no number of a class stays."""
    if isinstance(value, list):
        return [_named_classes(one, names) for one in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

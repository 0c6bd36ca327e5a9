"""JSON lines with pairs: one object a line, plain or compressed."""

from collections.abc import Iterator
from typing import Any

from dragoman.config import config
from dragoman.errors import DataError
from dragoman.text.formats.columns import NOTES
from dragoman.text.lines import AnnotatedPair, DocumentEnds, Pair, check_string, parse_json, read_lines


@config
class JsonLines:
    """JSON lines."""

    path: str
    """Path of a file with one JSON object a line, plain, .gz or .zst."""
    source: str = "source"
    """Key of the source; a dot leads into an object, as in translation.en."""
    target: str = "target"
    """Key of the target."""
    document: str | None = None
    """Key of the document of a row; None where empty lines separate documents, if anything does."""


def read_json_lines(cfg: JsonLines) -> Iterator[Pair | None]:
    """Yield the pairs of a file, and None where a document ends.

    Raises:
        DataError: a line that is no object with both texts; the message names it.
    """
    boundaries = DocumentEnds()
    for number, line in enumerate(read_lines(cfg.path), 1):
        if not line or line.isspace():
            yield None
            continue
        where = f"{cfg.path}:{number}"
        record = parse_json(line, where)
        if cfg.document is not None and boundaries.starts_new(_value(record, cfg.document, where)):
            yield None
        source, target = _text(record, cfg.source, where), _text(record, cfg.target, where)
        notes = [record[name] for name in NOTES if isinstance(record.get(name), str)]
        yield AnnotatedPair.of(source, target, notes)


def _text(record: Any, key: str, where: str) -> str:
    text = _value(record, key, where)
    if not isinstance(text, str):
        raise DataError(f"{where}: {key!r} is not a string but {type(text).__name__}")
    return check_string(text, f"{where}: {key!r}")


def _value(record: Any, key: str, where: str) -> Any:
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object expected, such as {{{key!r}: ...}}, not {type(record).__name__}")
    if key in record:
        return record[key]
    first, dot, rest = key.partition(".")
    if dot and first in record:
        return _value(record[first], rest, where)
    raise DataError(f"{where}: no key {key!r} among {', '.join(map(repr, record)) or 'none'}")

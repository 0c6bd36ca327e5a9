"""Held-out pairs as a run stores them: JSON lines with the tags of their source and the preceding sentences of their
document."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from dragoman import durable
from dragoman.errors import DataError
from dragoman.text.context import NO_CONTEXT, ReadContext
from dragoman.text.formats.pairs import PairSource, prefix_of, tags_of
from dragoman.text.lines import Sourced, parse_json, read_lines

E = TypeVar("E")


def held_out_line(pair: Sourced) -> str:
    """Return the JSON line of a held-out pair."""
    tags = {"tags": pair.tags.split()} if pair.tags else {}
    context = {"context": pair.context} if pair.context else {}
    matches = {"matches": pair.matches} if pair.matches else {}
    return json.dumps(pair.pair._asdict() | tags | context | matches, ensure_ascii=False) + "\n"


def write_held_out(folder: Path, sets: Mapping[str, Iterable[E]], line: Callable[[E], str]) -> None:
    """Write held-out sets by their names, an example a ``line``."""
    for name, examples in sets.items():
        durable.write(folder / f"{name}.jsonl", "".join(map(line, examples)).encode())


def read_held_out(path: Path) -> list[Sourced]:
    """Read what ``held_out_line`` wrote; an empty list where no pair was held out.

    Raises:
        DataError: no such file, or a line that was not written so.
    """
    return [_pair(line, f"{path}:{number}") for number, line in enumerate(read_lines(path), 1)]


def _pair(line: str, where: str) -> Sourced:
    try:
        row = parse_json(line, where)
        tags, context = " ".join(row.get("tags", ())), tuple(map(str, row.get("context", ())))
        matches = tuple(tuple(map(str, texts)) for texts in row.get("matches", ()))
        return Sourced(row["source"], row["target"], "", tags, context, matches)
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{where}: not a pair as runs hold them out: write source and target, perhaps tags, context and matches"
        ) from None


def tagged_pairs(
    sources: Iterable[PairSource], tags: Sequence[str] = (), context: ReadContext = NO_CONTEXT
) -> list[Sourced]:
    """Read the pairs of sources with their prefixes and tags; ``tags``, where given, replace those of each source."""
    return [
        Sourced(prefix_of(source) + pair.source, pair.target, "", " ".join(tags or tags_of(source)), before)
        for source in sources
        for pair, before in context.in_pairs(source)
    ]

"""Compiled gettext catalogues, laid out as in the GNU manual: two tables of lengths and offsets.

A source has its context before it (ended by EOT) and its plural after it (preceded by NUL). The forms of its
translation are separated by NUL. The format has no checksum, but its rules reveal most damage: a NUL follows each
string, nothing overlaps anything else, and the sources are in order, none of them twice.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from dragoman.errors import DataError
from dragoman.text.compressed import read_bytes
from dragoman.text.formats import plurals
from dragoman.text.formats.po import PoEntry, Value
from dragoman.text.lines import AnnotatedPair, Pair, check_string

MAGIC = 0x950412DE
HEADER = 28
"""Bytes before the tables; a later minor revision of the format adds to them."""
AGAIN = "compile it again with msgfmt"


class Message(NamedTuple):
    """Entry of a catalogue."""

    context: bytes
    source: bytes
    plural: bytes | None
    forms: list[bytes]


class StringSpan(NamedTuple):
    """Position of a string or table in the file."""

    start: int
    length: int
    what: str

    @property
    def end(self) -> int:
        """Return the end, exclusive."""
        return self.start + self.length


def read_mo(path: str) -> Iterator[Pair]:
    """Yield the entries of a compiled catalogue, one pair for each plural form.

    Raises:
        DataError: it is damaged or not a catalogue; the message names the file and the entry.
    """
    messages = _messages(read_bytes(path), path)
    header = next((m.forms[0] for m in messages if not m.source and not m.context), b"")
    charset, rule = _header(header, path)
    for number, message in enumerate(messages, 1):
        entry = PoEntry(0, number)
        where = f"{path}: entry {number}"
        entry.source = _value(message.source, charset, where)
        entry.plural = None if message.plural is None else _value(message.plural, charset, where)
        for form, raw in enumerate(message.forms):
            text = _value(raw, charset, where).text
            if text and (source := entry.source_of(form, rule)):
                yield AnnotatedPair.of(source, text, [_value(message.context, charset, where).text])


def _messages(raw: bytes, name: str) -> list[Message]:
    sources, targets = _strings(raw, name)
    messages = []
    for source, target in zip(sources, targets, strict=True):
        context, _, text = source.rpartition(b"\4")
        text, has_plural, plural = text.partition(b"\0")
        messages.append(Message(context, text, plural if has_plural else None, target.split(b"\0")))
    _check_order(sources, messages, name)
    return messages


def _strings(raw: bytes, name: str) -> tuple[list[bytes], list[bytes]]:
    """Return the sources and their translations, as they are stored."""
    order = next((order for order in "<>" if raw[:4] == struct.pack(f"{order}I", MAGIC)), None)
    if order is None:
        raise DataError(f"{name}: not a compiled gettext catalogue: should its name end in .po?")
    try:
        revision, count, *starts, hashes, hashed_at = struct.unpack_from(f"{order}6I", raw, 4)
        if revision >> 16 > 1:
            raise DataError(f"{name}: unknown format {revision >> 16}: {AGAIN}")
        tables = [struct.unpack_from(f"{order}{2 * count}I", raw, start) for start in starts]
    except struct.error:
        raise DataError(f"{name}: damaged: it is shorter than its header says: {AGAIN}") from None
    places = [
        [StringSpan(table[2 * i + 1], table[2 * i], f"the {side} of entry {i + 1}") for i in range(count)]
        for side, table in zip(("source", "translation"), tables, strict=True)
    ]
    tables_of_file = [StringSpan(0, HEADER, "the header"), StringSpan(hashed_at, 4 * hashes, "the table of hashes")]
    tables_of_file += [StringSpan(start, 8 * count, "a table") for start in starts]
    _check_places(raw, places[0] + places[1], tables_of_file, name)
    sources, targets = ([raw[place.start : place.end] for place in side] for side in places)
    return sources, targets


def _check_places(raw: bytes, strings: Sequence[StringSpan], others: Sequence[StringSpan], name: str) -> None:
    """Check the layout.

    Raises:
        DataError: a string without a NUL after it, or one that overlaps something else.
    """
    for string in strings:
        if raw[string.end : string.end + 1] != b"\0":
            raise DataError(f"{name}: damaged: {string.what} does not end where it should: {AGAIN}")
    ordered = sorted(place for place in chain(strings, others) if place.length)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            raise DataError(f"{name}: damaged: {after.what} overlaps {before.what}: {AGAIN}")


def _check_order(sources: Sequence[bytes], messages: Sequence[Message], name: str) -> None:
    """Check the order of the entries.

    Raises:
        DataError: sources that are not in the order of their bytes (or, as Babel writes them, of their texts, then of
            their contexts), or one that occurs twice.
    """
    orders = [list(sources), [(m.source, m.context, m.plural or b"") for m in messages]]
    wrong = [next((i for i, (a, b) in enumerate(pairwise(keys), 2) if a >= b), None) for keys in orders]
    if all(wrong):
        raise DataError(
            f"{name}: damaged: the source of entry {wrong[0]} is not in order after the one before: {AGAIN}"
        )


def _header(header: bytes, name: str) -> tuple[str, plurals.Plurals | None]:
    """Return the encoding and the plural rule."""
    fields = {key.lower(): value for key, value in re.findall(r"(?m)^([\w-]+):[ ]*(.*)$", header.decode("latin-1"))}
    charset = re.search(r"charset=([\w.:-]+)", fields.get("content-type", ""))
    try:
        rule = plurals.parse(fields["plural-forms"]) if fields.get("plural-forms") else None
    except ValueError as error:
        raise DataError(f"{name}: Plural-Forms in the header: {error}") from None
    return charset[1] if charset else "UTF-8", rule or plurals.rule_of_language(fields.get("language", ""))


def _value(raw: bytes, charset: str, where: str) -> Value:
    try:
        return Value(0, text=check_string(raw.decode(charset), where))
    except (LookupError, UnicodeDecodeError):
        raise DataError(f"{where}: not {charset}, the encoding that the header names") from None

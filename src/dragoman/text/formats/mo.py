"""gettext's compiled catalogues, read as they are laid out in the GNU manual: two tables of lengths and places.

A source with its context before it (ended by EOT) and its plural after it (begun by NUL), and the forms of its
translation with NUL between them.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from dragoman.errors import DataError
from dragoman.text.filled import plurals
from dragoman.text.formats.compressed import read_bytes
from dragoman.text.formats.lines import Pair, check_string
from dragoman.text.formats.po import Entry, Value

MAGIC = 0x950412DE


class Message(NamedTuple):
    context: bytes
    source: bytes
    plural: bytes | None
    forms: list[bytes]


def read_mo(path: str) -> Iterator[Pair]:
    """The entries of a compiled catalogue, one pair for each plural form.

    Raises:
        DataError: it is damaged or none at all; the message names the file and the entry.
    """
    messages = list(_messages(read_bytes(path), path))
    header = next((m.forms[0] for m in messages if not m.source and not m.context), b"")
    charset, rule = _header(header, path)
    for number, message in enumerate(messages, 1):
        entry = Entry(0, number)
        where = f"{path}: entry {number}"
        entry.source = _value(message.source, charset, where)
        entry.plural = None if message.plural is None else _value(message.plural, charset, where)
        for form, raw in enumerate(message.forms):
            text = _value(raw, charset, where).text
            if text and (source := entry.source_of(form, rule)):
                yield Pair(source, text)


def _messages(raw: bytes, name: str) -> Iterator[Message]:
    order = next((order for order in "<>" if raw[:4] == struct.pack(f"{order}I", MAGIC)), None)
    if order is None:
        raise DataError(f"{name}: not a compiled gettext catalogue: does it want another name, such as .po?")
    try:
        revision, count, sources, targets = struct.unpack_from(f"{order}4I", raw, 4)
        if revision >> 16 > 1:
            raise DataError(f"{name}: of the unknown format {revision >> 16}: compile it again with msgfmt")
        for number in range(count):
            source = _bytes_at(raw, *struct.unpack_from(f"{order}2I", raw, sources + 8 * number))
            target = _bytes_at(raw, *struct.unpack_from(f"{order}2I", raw, targets + 8 * number))
            context, _, source = source.rpartition(b"\4")
            source, has_plural, plural = source.partition(b"\0")
            yield Message(context, source, plural if has_plural else None, target.split(b"\0"))
    except (struct.error, IndexError):
        raise DataError(f"{name}: damaged: it ends before what it announces: compile it again with msgfmt") from None


def _bytes_at(raw: bytes, length: int, start: int) -> bytes:
    if start + length > len(raw):
        raise IndexError
    return raw[start : start + length]


def _header(header: bytes, name: str) -> tuple[str, plurals.Plurals | None]:
    """The encoding, and how plurals are formed."""
    fields = {key.lower(): value for key, value in re.findall(r"(?m)^([\w-]+):[ ]*(.*)$", header.decode("latin-1"))}
    charset = re.search(r"charset=([\w.:-]+)", fields.get("content-type", ""))
    try:
        rule = plurals.parse(fields["plural-forms"]) if fields.get("plural-forms") else None
    except ValueError as error:
        raise DataError(f"{name}: Plural-Forms in the header: {error}") from None
    return charset[1] if charset else "UTF-8", rule or plurals.of_language(fields.get("language", ""))


def _value(raw: bytes, charset: str, where: str) -> Value:
    try:
        return Value(0, text=check_string(raw.decode(charset), where))
    except (LookupError, UnicodeDecodeError):
        raise DataError(f"{where}: not {charset}, the encoding that the header names") from None

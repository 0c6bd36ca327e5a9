"""JSON with the position of everything in it."""

import json
import re
from dataclasses import dataclass, field
from json.decoder import scanstring  # pyright: ignore[reportAttributeAccessIssue]

from dragoman.errors import DataError
from dragoman.text.filled.spans import TextFile

DEPTH = 200
"""Largest nesting depth."""


@dataclass
class JsonNode:
    """Value with its position."""

    start: int
    end: int
    value: str | None = None
    """Value of a string; None for everything else."""
    members: "list[JsonMember] | None" = None
    """Members of an object or elements of an array; None for everything else."""
    is_object: bool = False
    names: "dict[str, JsonMember]" = field(default_factory=dict)
    """Members of an object by name; the last of those with one name."""

    def text_of(self, name: str) -> str | None:
        """Return the string under a name, if there is one."""
        return self.names[name].node.value if name in self.names else None

    def at(self, name: str) -> "JsonNode | None":
        """Return the value under a name, if there is one."""
        return self.names[name].node if name in self.names else None


@dataclass
class JsonMember:
    """Member of an object, or element of an array."""

    name: str
    start: int
    """Position of its name, or of the element."""
    name_end: int
    """End of its name; of an element, its start."""
    node: JsonNode


def read_json_tree(file: TextFile) -> JsonNode:
    """Parse a file as JSON.

    Raises:
        DataError: not JSON; the message names the line.
    """
    try:
        json.loads(file.text)
    except json.JSONDecodeError as error:
        raise DataError(f"{file.name}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise DataError(f"{file.name}: JSON nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{file.name}: not JSON that can be read: {error}") from None
    return _Reader(file).value(_after_space(file.text, 0), 0)


class _Reader:
    """Reader of text that is known to be JSON."""

    def __init__(self, file: TextFile):
        self.file, self.text = file, file.text

    def value(self, at: int, depth: int) -> JsonNode:
        if depth > DEPTH:
            raise DataError(f"{self.file.place(at)}: JSON nested more than {DEPTH} deep")
        first = self.text[at]
        if first == '"':
            value, end = scanstring(self.text, at + 1)
            return JsonNode(at, end, value)
        if first in "{[":
            return self.collection(at, depth, is_object=first == "{")
        found = _LITERAL.match(self.text, at)
        assert found, "json.loads has accepted this text"
        return JsonNode(at, found.end())

    def collection(self, at: int, depth: int, *, is_object: bool) -> JsonNode:
        members, start = [], at
        at = _after_space(self.text, at + 1)
        while self.text[at] not in "}]":
            name, begin, name_end = str(len(members)), at, at
            if is_object:
                name, name_end = scanstring(self.text, at + 1)
                at = _after_space(self.text, _after_space(self.text, name_end) + 1)  # past the colon
            node = self.value(at, depth + 1)
            members.append(JsonMember(name, begin, name_end, node))
            at = _after_space(self.text, node.end)
            if self.text[at] == ",":
                at = _after_space(self.text, at + 1)
        names = {member.name: member for member in members} if is_object else {}
        return JsonNode(start, at + 1, None, members, is_object, names)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found
    return found.end()


_SPACE = re.compile(r"[ \t\r\n]*")
_LITERAL = re.compile(r"[-+.\w]+")


class JsonStrings:
    """Spelling of strings as a file has them: beyond ASCII as they are or escaped, ``/`` escaped or not."""

    def __init__(self, text: str):
        self.ascii = text.isascii() and re.search(r"\\u(?!00[01])[0-9a-fA-F]{4}", text) is not None
        self.slash = "\\/" in text

    def escaped(self, text: str, _: object = ()) -> str:
        """Return a text as the inside of a JSON string."""
        written = json.dumps(text, ensure_ascii=self.ascii)[1:-1]
        return written.replace("/", "\\/") if self.slash else written

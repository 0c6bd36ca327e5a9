"""Messages of a conversation: checked, and rebuilt from nothing but plain data."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dragoman.errors import DataError
from dragoman.text.lines import check_surrogates

Message = Any
"""A message: a mapping with a ``role`` (system, user, assistant, tool), a ``content``, and what else a template may
read; or an object of a dataclass or of pydantic with these fields. See ``check_messages``."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names under which a message may hold the reasoning before an answer; templates read the first or the second."""


DEEPEST = 200
"""Most levels of lists and mappings inside one another."""


def check_messages(given: Any) -> list[dict[str, Any]]:
    """Return the messages as plain data, without entries that are None.

    Raises:
        DataError: no list of messages, an empty one, or a message without a role or with a content of another type.
    """
    items = _entries(given, "messages", "messages such as {'role': 'user', 'content': 'Hello'}")
    if not items:
        raise DataError("messages: there are none: give at least one")
    return [_message(item, f"message {number}") for number, item in enumerate(items, 1)]


def check_schemas(given: Any, name: str) -> list[dict[str, Any]] | None:
    """Return tools or documents as plain data; None where there are none.

    Raises:
        DataError: no list of mappings.
    """
    if given is None:
        return None
    found = []
    for number, item in enumerate(_entries(given, name, "mappings"), 1):
        plain = _plain(item, f"{name}: entry {number}")
        if not isinstance(plain, dict):
            raise DataError(f"{name}: entry {number}: a mapping such as a JSON schema is expected, not {_named(item)}")
        found.append(plain)
    return found


def check_variables(given: Any) -> dict[str, Any]:
    """Return further variables of a template; none for None.

    Raises:
        DataError: no mapping of names.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise DataError(f"variables: a mapping of names to values is expected, not {_named(given)}")
    return dict(given)


def _entries(given: Any, name: str, what: str) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence):
        raise DataError(f"{name}: a list of {what} is expected, not {_named(given)}")
    return list(given)


def _message(item: Any, where: str) -> dict[str, Any]:
    plain = _plain(item, where)
    if not isinstance(plain, dict):
        raise DataError(f"{where}: a mapping with a role and a content is expected, not {_named(item)}")
    message = {key: value for key, value in plain.items() if value is not None}
    role = message.get("role")
    if not isinstance(role, str) or not role:
        said = "has no role" if role is None else f"role must be a text, and is {_named(role)}"
        raise DataError(f"{where}: {said}: write system, user, assistant or tool")
    _check_content(message.get("content", ""), where)
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise DataError(f"{where}: content must be a text or a list of parts, and is {_named(content)}")
    for number, part in enumerate(content, 1):
        if not isinstance(part, dict) or (part.get("type", "text") == "text" and not isinstance(part.get("text"), str)):
            raise DataError(f"{where}: part {number} of its content must be like {{'type': 'text', 'text': 'Hello'}}")


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return ``value`` rebuilt from mappings, lists, texts and numbers: methods of other objects are not for templates.

    Raises:
        DataError: it holds something else, a key that is no text, or half of a surrogate pair, or is nested too deeply.
    """
    if depth > DEEPEST:
        raise DataError(f"{where}: is nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, bool | int):
        return value if value is None or isinstance(value, bool) else int(value)
    if isinstance(value, str):
        return str.__str__(check_surrogates(value, where))
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key, where): _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value]
    return _plain_object(value, where, depth)


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise DataError(f"{where}: holds a mapping with the key {_named(key)}; only texts can be keys")
    return _plain(key, where)


def _plain_object(value: Any, where: str, depth: int) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(fields, where, depth)
    if callable(dump := getattr(value, "model_dump", None)):  # messages of pydantic, such as those of API clients
        return _plain(dump(), where, depth + 1)
    raise DataError(f"{where}: holds {_named(value)}; only texts, numbers, lists and mappings can be written")


def with_continuation(messages: Sequence[Message], text: str) -> list[Message]:
    """Return the messages with ``text`` at the end of the last one, which was left open.

    The last message has a text: ``ChatTemplate.render`` refuses to leave another one open.
    """
    *before, last = messages
    content = last["content"]
    if isinstance(content, str):
        return [*before, {**last, "content": content + text}]
    *parts, final = content
    return [*before, {**last, "content": [*parts, {**final, "text": final["text"] + text}]}]


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with each of its texts changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def _named(value: Any) -> str:
    shown = "" if value is None else f" ({type(value).__name__})"
    return f"{repr(value)[:40]}{shown}"

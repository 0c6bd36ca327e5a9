"""Configuration as frozen dataclasses, converted to plain data and back with strict checks.

A choice is a union of config classes, distinguished in files by ``kind``: a field of type ``Norm`` reads
``{kind: rms_norm, eps: 1e-5}`` or, with every default, just ``rms_norm``. The union is the list of choices; there is
no registry. Unknown keys, missing keys and ill-typed values are errors that name the path and the likely intent.
"""

import copy
import dataclasses
import difflib
import io
import json
import re
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, dataclass_transform, get_args, get_origin, get_type_hints

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from dragoman.errors import ConfigError

Fraction = Annotated[float, Field(ge=0, le=1)]
"""Part of a whole, from 0 to 1."""


def _as_text(step: Any) -> Any:
    return str(step) if isinstance(step, int) and not isinstance(step, bool) else step


CheckpointName = Annotated[str, BeforeValidator(_as_text)]
"""A checkpoint of a run: best, last, a step, or a name."""

CONFIG = "config.yaml"
"""Name of the configuration in the directory of a run."""

T = TypeVar("T")

# ---- declaring ------------------------------------------------------------------------------------


_PYDANTIC = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Settings that all config classes share, the same object for each."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, keyword-only dataclass whose first field is its name in files, ``kind``."""
    kind = kind_of(cls)
    cls.__annotations__ = {"kind": Literal[kind]} | cls.__annotations__  # pyright: ignore[reportInvalidTypeForm]
    cls.kind = kind  # pyright: ignore[reportAttributeAccessIssue]
    cls.__pydantic_config__ = _PYDANTIC  # pyright: ignore[reportAttributeAccessIssue]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


def kind_of(cls: type) -> str:
    """Return the name of a class in files: ``no_position`` for ``NoPosition``, ``attention`` for
    ``AttentionConfig``, ``tagging`` for both ``TaggingTask`` and ``TaggingHead``."""
    name = re.sub(r"(?<!^No)(Config|Task|Head)$", "", cls.__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def choices(union: Any) -> list[type]:
    """List the config classes of a union; the union is their only list."""
    return _config_classes(union)


class OneOf:
    """Mark of a union of config classes as a choice: ``Norm = Annotated[LayerNorm | RmsNorm, OneOf()]``. A mapping
    without a kind is of the ``usual`` one, if given."""

    def __init__(self, usual: str | None = None):
        self.usual = usual
        self._complete: list[str] = []  # kinds that need no settings; known once the union is

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        tagged = handler.generate_schema(Annotated[source, Field(discriminator="kind")])
        self._complete = [kind_of(choice) for choice in choices(source) if not _needs_settings(choice)]

        def read(value: Any) -> Any:
            return _tuples(_spell_out(value, self.usual))

        return core_schema.no_info_before_validator_function(read, tagged)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        tagged = handler(schema)
        references = {name: {"$ref": ref} for name, ref in tagged.get("discriminator", {}).get("mapping", {}).items()}
        if not references:
            return tagged
        without_kind = [references[self.usual]] if self.usual is not None else []
        names = sorted(self._complete)
        return {"anyOf": [{"enum": names}, tagged | {"type": "object", "required": ["kind"]}, *without_kind]}


def _needs_settings(cls: type) -> bool:
    missing = dataclasses.MISSING
    return any(field.default is missing and field.default_factory is missing for field in dataclasses.fields(cls))


def _spell_out(value: Any, usual: str | None = None) -> Any:
    """Expand ``rotary``, short for ``{kind: rotary}``."""
    if usual is not None and isinstance(value, dict):
        return {"kind": usual} | value
    return {"kind": value} if isinstance(value, str) else value


def _tuples(value: Any) -> Any:
    """Convert lists to tuples: after a Python validator, pydantic's strict mode no longer knows they came from JSON."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


@contextmanager
def at(path: str) -> Iterator[None]:
    """Prefix the path of a nested configuration to the ConfigErrors raised while it is built."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from None


# ---- to and from plain data -----------------------------------------------------------------------


def to_dict(value: Any) -> Any:
    """Convert to plain dicts, lists and scalars, with every field."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: to_dict(v) for k, v in value.items()}
    return [to_dict(v) for v in value] if isinstance(value, tuple | list) else value


def from_dict(tp: Any, data: Any, where: str = "") -> Any:
    """Rebuild a value of type ``tp``.

    Raises:
        ConfigError: an unknown key, a missing key or an ill-typed value; the message opens with ``where`` and the path.
    """
    try:
        text = json.dumps(data, default=str)  # through JSON, where strict still lets a list be a tuple
        return _adapter(tp).validate_json(text)
    except ValidationError as error:
        raise ConfigError(_explain(tp, error.errors(), where)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where or 'config'}: {error}") from None


def json_schema(tp: Any) -> dict[str, Any]:
    """Return the JSON schema of type ``tp``, with which editors complete and check configuration files."""
    _PYDANTIC["use_attribute_docstrings"] = (
        True  # here alone: reading the source of all classes takes a fifth of a second
    )
    try:
        schema = TypeAdapter(tp).json_schema()
    finally:
        del _PYDANTIC["use_attribute_docstrings"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


@lru_cache(maxsize=64)
def _adapter(tp: Any) -> TypeAdapter:
    return TypeAdapter(tp)


# ---- changing -------------------------------------------------------------------------------------


def merge(base: Any, change: Any) -> Any:
    """Merge ``change`` over ``base``, mapping by mapping; a change of ``kind`` replaces the whole mapping."""
    if not isinstance(change, dict):
        return change
    base = _spell_out(base)
    if not isinstance(base, dict) or ("kind" in base and change.get("kind", base["kind"]) != base["kind"]):
        return change
    return base | {key: merge(base.get(key), value) if key in base else value for key, value in change.items()}


def override(data: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Return a copy with one leaf replaced: ``override(data, "decoder.depth=4")``.

    ``*`` matches every entry of a list, and every key under which the rest of the path exists:
    ``*.pattern.*.dropout=0.1`` means all blocks of encoder and decoder.

    Raises:
        ConfigError: no ``=``, or a path that leads nowhere.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"{assignment!r}: write PATH=VALUE, for example decoder.depth=4")
    return _assign(data, path.split("."), load_yaml(text, where=assignment), path)


def _assign(node: Any, steps: list[str], value: Any, path: str) -> Any:
    if not steps:
        return merge(node, value) if isinstance(value, dict) else value
    node, (step, *rest) = _spell_out(node), steps
    if isinstance(node, list):
        if step != "*" and not (step.isdigit() and int(step) < len(node)):
            raise ConfigError(f"{path}: no entry {step!r}; there are {len(node)}, counted from 0, and * means each")
        return [_assign(v, rest, value, path) if step in ("*", str(i)) else v for i, v in enumerate(node)]
    if not isinstance(node, dict):
        raise ConfigError(f"{path}: nothing below {step!r}, it stands for the single value {node!r}")
    if step == "*":
        chosen = [key for key, below in node.items() if not rest or _leads(below, rest[0])]
        if not chosen:
            raise ConfigError(f"{path}: nothing that * could stand for has a {rest[0]!r}")
        return node | {key: _assign(node[key], rest, value, path) for key in chosen}
    if step == "kind" and not rest and node.get("kind", value) != value:
        return {"kind": value}  # as in ``merge``: the fields of another kind are not its own
    return node | {step: _assign(node.get(step, {} if rest else None), rest, value, path)}


def _leads(node: Any, step: str) -> bool:
    return isinstance(node, list) if step == "*" or step.isdigit() else isinstance(node, dict) and step in node


def differences(a: Any, b: Any, path: str = "", *, absent: Any = None) -> list[tuple[str, Any, Any]]:
    """List (path, value in ``a``, value in ``b``) for every leaf in which two plain-data trees differ; ``absent``
    stands for a value that is not there."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        a, b = ({str(i): v for i, v in enumerate(x)} for x in (a, b))
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a == b else [(path, a, b)]
    keys = [*a, *(k for k in b if k not in a)]
    places = ((f"{path}.{k}" if path else str(k), a.get(k, absent), b.get(k, absent)) for k in keys)
    return [found for where, one, other in places for found in differences(one, other, where, absent=absent)]


# ---- files ----------------------------------------------------------------------------------------


_BEGINS_BADLY = re.compile(r"undefined alias|cannot start any token|constructor for the tag|alphabetic or numeric")
"""Problems of YAML with a text that begins with one of its signs."""


def load_yaml(text: str | Path, where: str | None = None) -> Any:
    """Parse YAML 1.2 (``1e-4`` is a number, ``no`` a string) from a text or a file.

    Raises:
        ConfigError: no such file, not UTF-8, or not YAML; the message names file and line.
    """
    from ruamel.yaml.error import MarkedYAMLError, YAMLError  # a tenth of a second that some commands do not need

    where = where or str(text)
    try:
        return copy.deepcopy(_parsed(text.read_bytes().decode() if isinstance(text, Path) else text))
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{where}: line {line}: not UTF-8, a byte {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        problem = error.problem or "not YAML"
        quoted = ': a text that begins so needs quotes, as in "*.tsv"' if _BEGINS_BADLY.search(problem) else ""
        raise ConfigError(f"{where}:{line} {problem}{quoted}") from None
    except YAMLError as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from None


@lru_cache(maxsize=32)
def _parsed(content: str) -> Any:
    """Parse a text once: a run asks for its configuration at each validation, and parsing it takes 10 ms."""
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(content)


def dump_yaml(value: Any) -> str:
    """Return the value as YAML text, with keys in declaration order."""
    from ruamel.yaml import YAML

    yaml, out = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.sort_base_mapping_type_on_output, yaml.width = False, False, 110  # pyright: ignore[reportAttributeAccessIssue]
    yaml.dump(to_dict(value), out)
    return out.getvalue()


# ---- explaining mistakes --------------------------------------------------------------------------

_MESSAGES = {  # pydantic's error type -> our message; ctx holds the details
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "tuple_type": "expected a list",
    "dataclass_type": "expected a mapping of settings",
    "model_attributes_type": "expected a kind, or a mapping with a 'kind'",
    "union_tag_not_found": "expected a kind, or a mapping with a 'kind'",
}


def _explain(tp: Any, errors: list[Any], where: str) -> str:
    error = min(errors, key=lambda e: e["type"] == "missing")  # a misspelt key first: it explains the missing one
    steps, holder, alternatives = _locate(tp, error["loc"])
    prefix = ".".join(filter(None, [where, *steps]))
    more = f" ({len(errors) - 1} more after this one)" if len(errors) > 1 else ""
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            at, _, key = prefix.rpartition(".")
            known = [f.name for f in dataclasses.fields(holder)]
            own = ".".join(steps[:-1])
            kinds = [kind_of(other) for other in alternatives if key in {f.name for f in dataclasses.fields(other)}]
            hint = f" {key!r} is a setting of the kind {' and '.join(kinds)}: set {own}.kind as well." if kinds else ""
            return unknown(at or kind_of(holder), key, known) + hint + more
        case "union_tag_invalid":
            known = re.findall(r"'(\w+)'", error["ctx"]["expected_tags"])
            return unknown(prefix, error["ctx"]["tag"], known) + more
        case "literal_error":
            return unknown(prefix, error["input"], re.findall(r"'([^']*)'", error["ctx"]["expected"])) + more
        case "missing" | "missing_argument":
            return f"{prefix}: must be given{more}"
        case "value_error":
            return f"{prefix}: {error['ctx']['error']}{more}"
    message = _MESSAGES.get(error["type"], error["msg"].replace("Input should", "must", 1))
    return f"{prefix or 'config'}: {message}, got {_short(error['input'])}{more}"


def unknown(where: str, got: Any, known: Iterable[str]) -> str:
    """Return the message for a name that is not ``known``: the place, the likely intent, the alternatives."""
    known = list(known)
    near = difflib.get_close_matches(str(got), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{where}: no {got!r} here.{hint} Known: {', '.join(known)}."


def _short(value: Any) -> str:
    text = repr(to_dict(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _locate(tp: Any, loc: tuple[Any, ...]) -> tuple[list[str], type, list[type]]:
    """Return the path as a user writes it for pydantic's ``loc`` (which also lists kinds), the last class on it, and
    the classes that could stand in its place."""
    path, holder, others, chosen_from = [], tp, [], []
    for step in loc:
        choices = _config_classes(tp)
        if len(choices) > 1 and step in {kind_of(c) for c in choices}:
            tp, chosen_from = next(c for c in choices if kind_of(c) == step), choices
            continue
        path.append(str(step))
        if len(choices) == 1:
            holder, others, chosen_from = choices[0], chosen_from, []
            tp = get_type_hints(holder, include_extras=True).get(str(step))
        else:
            tp = next(iter(get_args(_bare(tp))), None)  # the element type of a tuple
    if classes := _config_classes(tp):
        holder = classes[0] if len(classes) == 1 and not path else holder
    return path, holder, others


def _bare(tp: Any) -> Any:
    return get_args(tp)[0] if get_origin(tp) is Annotated else tp


def _config_classes(tp: Any) -> list[type]:
    """List the config classes that a field of type ``tp`` may hold."""
    tp = _bare(tp)
    if get_origin(tp) in (Union, types.UnionType):
        return [c for arg in get_args(tp) for c in _config_classes(arg)]
    return [tp] if isinstance(tp, type) and dataclasses.is_dataclass(tp) else []

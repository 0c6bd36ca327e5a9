"""Jinja in a sandbox, with the filters and functions that chat templates of Hugging Face folders use.

A template comes with a model and is not trusted: it reaches no attribute of Python's own, changes none of its inputs
and reads no file.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from dragoman.errors import ConfigError, DataError


class RefusedByTemplate(jinja2.TemplateError):
    """Refusal of the messages by the template itself."""


class _GenerationBlocks(Extension):
    """Read ``{% generation %}`` blocks, which mark what a model learns in training, as their content."""

    tags = {"generation"}  # noqa: RUF012  # the library's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's namespace, whose attributes may not begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        given = dict(*args[1:], **kwargs)
        for name in given:
            _refuse_private(name)
        Namespace.__init__(args[0], given)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _Dictionary:
    """Constructor of dictionaries, without the class itself, from which a template could reach others."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)


def _refuse_private(name: Any) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"names such as {name} are not its own")


def _raise_exception(message: object) -> NoReturn:
    raise RefusedByTemplate(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
):
    """Write JSON without Jinja's escapes of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache
def _environment() -> ImmutableSandboxedEnvironment:
    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols]
    )
    found.filters["tojson"] = _to_json
    found.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _Namespace,
        "dict": _Dictionary(),
    }
    return found


@lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def render(source: str, variables: Mapping[str, Any], where: str) -> str:
    """Return the text of a template.

    Args:
        where: name of the template, for messages.

    Raises:
        ConfigError: a template that is not Jinja, or does what the sandbox forbids.
        DataError: variables that the template refuses or cannot work with.
    """
    try:
        return _compiled(source).render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{where}: line {error.lineno}: not a Jinja template: {error.message}") from None
    except jinja2.exceptions.SecurityError as error:
        raise ConfigError(f"{where}: does what a template may not: {error}: do not use it") from None
    except RefusedByTemplate as refusal:
        raise DataError(f"the model's chat template refuses these messages: {refusal}") from None
    except Exception as error:  # whatever the template's own code meets
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: cannot write these messages: {reason}: see what the template expects") from None

"""Settings of measures and data sets: keyword arguments of a function, checked as those of a configuration are."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_type_hints

from dragoman.config import config, from_dict, unknown
from dragoman.errors import ConfigError


def check_settings(settings: Mapping[str, Any], function: Callable[..., Any], where: str) -> None:
    """Check that ``settings`` are keyword arguments of a function, and of the types that it declares.

    Raises:
        ConfigError: one that it does not have, one that is missing, or one of another type.
    """
    declared = _declared(function)
    known = [name for name in declared.__annotations__ if name != "kind"]
    for name in settings:
        if name not in known:
            raise ConfigError(unknown(where, name, known or ("nothing",)))
    from_dict(declared, dict(settings), where)


@cache
def _declared(function: Callable[..., Any]) -> type:
    """Return the keyword arguments of a function as a class of configuration."""
    hints = get_type_hints(function, include_extras=True)
    named = [one for one in inspect.signature(function).parameters.values() if one.kind == one.KEYWORD_ONLY]
    defaults = {one.name: one.default for one in named if one.default is not one.empty}
    return config(type("Settings", (), {"__annotations__": {one.name: hints[one.name] for one in named}} | defaults))

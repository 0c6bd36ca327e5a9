"""Rotary positions of a config.json: ``rope_parameters``, or ``rope_scaling`` and ``rope_theta`` in older files."""

import math
from collections.abc import Mapping
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.hub_config import HubConfig
from dragoman.model.positions.rotary import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRope,
    NoScaling,
    Rotary,
    RotaryScaling,
    Yarn,
)


def read_rotary(given: HubConfig, kind: str | None = None, theta: float = 10_000.0, *, partial: bool = False) -> Rotary:
    """Return the rotary positions of all layers, or of one ``kind`` of them.

    Args:
        given: the fields of config.json.
        kind: kind of layer, where ``rope_parameters`` has settings for each; None for all layers.
        theta: base where none is given.
        partial: whether the family rotates a part of each head where ``partial_rotary_factor`` says so.

    Raises:
        ConfigError: settings that cannot be obeyed.
    """
    settings, older = rope_settings(given, "rope_parameters"), rope_settings(given, "rope_scaling")
    old_theta = given.get("rope_theta")
    settings = settings.get(kind, settings) if kind else settings
    settings = settings or {"rope_theta": old_theta or theta} | older
    where = f"{given.where}: {'rope_parameters' if 'rope_parameters' in given.content else 'rope_scaling'}"
    part = settings.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    if not (part == 1.0 or (partial and isinstance(part, float) and 0 < part < 1)):
        raise ConfigError(f"{given.where}: partial_rotary_factor: {part} is not supported here, only 1.0")
    scaling = _scaling(settings, where, given)
    base = float(settings.get("rope_theta", given.get("rope_theta", theta)))
    return Rotary(theta=base, scaling=scaling, fraction=float(part))


def rope_settings(given: HubConfig, name: str) -> dict[str, Any]:
    """Return the settings in a field of config.json, empty where it is missing.

    Raises:
        ConfigError: the field holds something else.
    """
    settings = given.get(name, {})
    if not isinstance(settings, dict):
        raise ConfigError(f"{given.where}: {name}: expected settings by name, got {settings!r}")
    return settings


_FIELDS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "original_max_position_embeddings", "high_freq_factor", "low_freq_factor"),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
    "longrope": ("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
}
_NEEDS = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "high_freq_factor", "low_freq_factor"),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
}
_LISTS = ("short_factor", "long_factor")
_ALWAYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


def _scaling(settings: Mapping[str, Any], where: str, given: HubConfig) -> RotaryScaling:
    kind = settings.get("rope_type", settings.get("type", "default"))
    if kind not in _FIELDS:
        raise ConfigError(f"{where}: rope_type {kind!r} is not supported; known: {', '.join(_FIELDS)}")
    _check_fields(kind, settings, where)
    longest = given.get("max_position_embeddings")
    trained = settings.get("original_max_position_embeddings", longest)
    match kind:
        case "linear":
            return LinearScaling(factor=float(settings["factor"]))
        case "dynamic":
            return _dynamic(settings, where, given)
        case "llama3":
            return Llama3Scaling(
                factor=float(settings["factor"]),
                trained=trained,
                fast=float(settings["high_freq_factor"]),
                slow=float(settings["low_freq_factor"]),
            )
        case "yarn":
            fast, slow = float(settings.get("beta_fast") or 32), float(settings.get("beta_slow") or 1)
            return Yarn(factor=float(settings["factor"]), trained=trained, fast=fast, slow=slow)
        case "longrope":
            return _long_rope(settings, where, given)
    return NoScaling()


def _check_fields(kind: str, settings: Mapping[str, Any], where: str) -> None:
    """Look for fields that are missing, that this kind does not have, and that are no numbers.

    Raises:
        ConfigError: there is one.
    """
    known = {*_ALWAYS, *_FIELDS[kind]}
    if unread := sorted(name for name in settings if settings[name] is not None and name not in known):
        raise ConfigError(f"{where}: {unread[0]} of {kind} is not supported")
    for name in sorted(known - {"rope_type", "type"}):
        value, optional = settings.get(name), name not in _NEEDS.get(kind, ())
        if optional and (name not in settings or (value is None and kind == "longrope")):
            continue
        expected = "a list of numbers above 0" if name in _LISTS else "a number"
        if not (_is_list_of_factors(value) if name in _LISTS else type(value) in (int, float)):
            raise ConfigError(f"{where}: {name}: expected {expected} for {kind}, got {value!r}")


def _is_list_of_factors(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(type(v) in (int, float) and v > 0 for v in value)


def _dynamic(settings: Mapping[str, Any], where: str, given: HubConfig) -> DynamicNtkScaling:
    """Return dynamic scaling, whose length is that of config.json whatever else these settings name."""
    longest = given.get("max_position_embeddings")
    if longest is None:
        raise ConfigError(f"{where}: dynamic needs max_position_embeddings, which config.json does not give")
    given.note(
        f"config.json: rope_type dynamic: the same up to {longest} tokens; in longer texts a token is turned by the "
        "length of the text up to it here, and there by all that is read at once"
    )
    return DynamicNtkScaling(factor=float(settings["factor"]), trained=longest)


def _long_rope(settings: Mapping[str, Any], where: str, given: HubConfig) -> LongRope:
    """Return LongRoPE; where a factor of attention is not given, it follows from the lengths (section 3.4)."""
    longest = given.get("max_position_embeddings")
    trained = given.get("original_max_position_embeddings", settings.get("original_max_position_embeddings", longest))
    if type(trained) is not int or trained < 1:
        raise ConfigError(f"{where}: longrope needs original_max_position_embeddings, a length in tokens")
    factor = settings.get("factor") or (longest or trained) / trained
    magnitude = settings.get("attention_factor")
    if magnitude is None:
        magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 and trained > 1 else 1.0
    short, long = (tuple(map(float, settings[name])) for name in _LISTS)
    return LongRope(trained=trained, short=short, long=long, magnitude=float(magnitude))


# ---- ours -> config.json ---------------------------------------------------------------------------


def their_rotary(rotary: Any) -> dict[str, Any]:
    """Return ``rope_parameters`` as transformers writes them, where it has these positions."""
    common: dict[str, Any] = {"rope_theta": getattr(rotary, "theta", 10_000.0)}
    if getattr(rotary, "fraction", 1.0) != 1.0:
        common["partial_rotary_factor"] = rotary.fraction
    match getattr(rotary, "scaling", None):
        case LinearScaling(factor=factor):
            return common | {"rope_type": "linear", "factor": factor}
        case DynamicNtkScaling(factor=factor):
            return common | {"rope_type": "dynamic", "factor": factor}
        case Llama3Scaling(factor=factor, trained=trained, fast=fast, slow=slow):
            return common | {
                "rope_type": "llama3",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "high_freq_factor": fast,
                "low_freq_factor": slow,
            }
        case Yarn(factor=factor, trained=trained, fast=fast, slow=slow):
            return common | {
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": trained,
                "beta_fast": fast,
                "beta_slow": slow,
            }
        case LongRope(trained=trained, short=short, long=long, magnitude=magnitude):
            return common | {
                "rope_type": "longrope",
                "original_max_position_embeddings": trained,
                "attention_factor": magnitude,
                "short_factor": list(short),
                "long_factor": list(long),
            }
    return common | {"rope_type": "default"}


LONGEST = 4096
"""Length written for models whose positions have no limit, and state none: transformers and llama.cpp require a
number."""


def their_longest(rotary: Any, usual: int = LONGEST) -> int:
    """Return ``max_position_embeddings`` for these positions: of scaling it is a part, and else ``usual``."""
    match getattr(rotary, "scaling", None):
        case DynamicNtkScaling(trained=trained):
            return trained
        case LongRope(trained=trained):
            return max(usual, 2 * trained)
    return usual

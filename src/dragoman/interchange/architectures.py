"""Names of architectures: the family that one belongs to, and what to say of one that none has."""

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.errors import ConfigError
from dragoman.interchange.families import FAMILIES
from dragoman.interchange.family import Family
from dragoman.interchange.hub_config import named_architectures

_CLOSE = 0.9
"""Similarity from which a name counts as a misspelling of another."""


def find_family(content: Mapping[str, Any], where: Path | str) -> Family:
    """Return the family that a config.json names.

    Raises:
        ConfigError: none we know, none at all, or a quantized checkpoint.
    """
    if content.get("quantization_config"):
        raise ConfigError(f"{where}: quantization_config: quantized checkpoints are not read; take the original")
    named = named_architectures(content, where)
    if not isinstance(content.get("model_type"), str | None):
        raise ConfigError(f"{where}: model_type: expected a name, got {content['model_type']!r}")
    known = {name: family for family in FAMILIES for name in family.architectures}
    for name in named:
        if name in known:
            return known[name]
    for family in FAMILIES:
        if not named and content.get("model_type") == family.model_type:
            return family
    if not named and not content.get("model_type"):
        raise ConfigError(
            f"{where}: names no architectures and no model_type, as folders of 2020 and before do not: say which it is "
            "with --as, for example --as BertForMaskedLM"
        )
    raise ConfigError(_unknown(where, named[0] if named else content["model_type"], list(known)))


def as_architecture(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a config.json that names this architecture, and the model_type of its family.

    Raises:
        ConfigError: no family has it.
    """
    family = find_family({"architectures": [name]}, "--as")
    kept = content.get("model_type")
    return {**content, "architectures": [name], "model_type": kept or family.model_type}


def _unknown(where: Path | str, name: str, known: list[str]) -> str:
    """Return the message about a name that no family has; a misspelling is corrected, another architecture is not."""
    near = [] if _is_elsewhere(name) else difflib.get_close_matches(name, known, n=1, cutoff=_CLOSE)
    hint = f" Did you mean {near[0]!r}?" if near and _digits(near[0]) == _digits(name) else ""
    first = ", ".join(family.architectures[0] for family in FAMILIES)
    field = "" if where == "--as" else " architectures:"
    return f"{where}:{field} no {name!r} here.{hint} Known: {first}, and other heads of these."


def _digits(name: str) -> str:
    """Return the digits of a name: another number is another architecture, not a misspelling."""
    return "".join(character for character in name if character.isdigit())


def _is_elsewhere(name: str) -> bool:
    """Return whether transformers has an architecture of this name; False where it is not installed.

    Its table is read as text, which takes less time than importing the library.
    """
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        return False
    table = Path(found.origin).parent / "models" / "auto" / "modeling_auto.py"
    return table.is_file() and f'"{name}"' in table.read_text(encoding="utf-8", errors="replace")

"""A config.json while it is read: which fields were, and what is to be said about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.errors import ConfigError
from dragoman.model.mlp import Activation

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "silu": "silu",
    "swish": "silu",
}


def named_architectures(content: Mapping[str, Any], where: Path | str) -> list[str]:
    """Return the names in ``architectures``, which is a list or, in some files, one name; none where it is missing.

    Raises:
        ConfigError: it holds something else.
    """
    stated = content.get("architectures")
    names = [] if stated is None else [stated] if isinstance(stated, str) else stated
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: architectures: expected a list of names, got {stated!r}")
    return names


class HubConfig:
    """A config.json, whose errors name its path."""

    def __init__(self, content: dict[str, Any], where: Path | str = "config.json"):
        self.content, self.where = content, where
        self.read: set[str] = set()
        """Names of the fields that have been read."""
        self.notes: list[str] = []
        """Notes on what is left out, or differs, a line each."""
        self.parts: dict[str, HubConfig] = {}
        """Settings of parts that have their own, as far as they have been read."""

    def changed(self, **fields: Any) -> "HubConfig":
        """Return a copy with other values; fields read from it count as read here, and notes are shared."""
        copy = HubConfig(self.content | fields, self.where)
        copy.read, copy.notes = self.read, self.notes
        return copy

    def note(self, line: str) -> None:
        """Add a note, once."""
        if line not in self.notes:
            self.notes.append(line)

    def __getitem__(self, name: str) -> Any:
        """Return a field; raises ConfigError where it is missing."""
        self.read.add(name)
        if self.content.get(name) is None:
            raise ConfigError(f"{self.where}: {name}: must be given")
        return self.content[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, or ``default`` where it is missing or null."""
        self.read.add(name)
        value = self.content.get(name)
        return default if value is None else value

    def only(self, name: str, *known: Any, default: Any = None) -> Any:
        """Return a field that must be one of ``known``; the first where it is missing.

        Raises:
            ConfigError: another value.
        """
        value = self.get(name, known[0] if default is None else default)
        if value not in known:
            settings = " or ".join(map(repr, known))
            raise ConfigError(f"{self.where}: {name}: {value!r} is not supported here, only {settings}")
        return value

    def activation(self, name: str) -> Activation:
        """Return our name of an activation; raises ConfigError where there is none."""
        value = self[name]
        if value not in ACTIVATIONS:
            raise ConfigError(f"{self.where}: {name}: no {value!r} here; known: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

"""Migrations of checkpoints of earlier formats: one function for each step from format N to N+1.

Any change to the content of a checkpoint (a parameter renamed, a field of the configuration moved) increments
``FORMAT`` and adds a function that converts the previous format. Old files are not modified; they are converted in
memory after loading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dragoman.errors import CheckpointError

FORMAT = 4
"""Today's checkpoint format."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """Content of a checkpoint, as plain data and tensors."""

    config: dict[str, Any]
    """Resolved configuration of the run."""
    progress: dict[str, Any]
    """Step, tokens and all other state of a run besides tensors."""
    tensors: dict[str, dict[str, Tensor]]
    """Tensors by part (``model``, ``optimizer``, ``average``) and name; only the requested parts."""


def _products(content: Content) -> Content:
    """Set ``train.products``, new in format 2, to torch's own choice, which earlier runs used."""
    config = content.config
    if "train" in config:
        config = config | {"train": {"products": "torch"} | config["train"]}
    return replace(content, config=config)


def _renamed(content: Content) -> Content:
    """Rename configuration fields to the standard terms of formats 3 and 4."""
    return replace(content, config=renamed(content.config))


MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: _products, 2: _renamed, 3: _renamed}
"""Functions that convert format N to N+1, by N."""


_RENAMED = {
    ("init",): "start_from",
    ("model", "silent"): "suppressed",
    ("train", "optimizer", "decay"): "weight_decay",
    ("train", "optimizer", "others", "decay"): "weight_decay",
}
"""Today's name of the last part of a path that earlier versions used."""


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with the names that earlier versions used replaced by today's.

    Run files and ``config.yaml`` carry no format number, so this accepts either spelling and leaves today's as it is.
    """
    match config:
        case {"data": {"kind": "data"} as data}:
            config = {**config, "data": {**data, "kind": "pairs"}}
    match config:
        case {"init": {"kind": _, **start}}:
            config = {**config, "init": start}
    for path, name in _RENAMED.items():
        config = _with_name(config, path, name)
    return config


def _with_name(config: Any, path: Sequence[str], name: str) -> Any:
    """Return a configuration in which the last part of ``path``, where it is there, is called ``name``."""
    first, *rest = path
    if not isinstance(config, dict) or first not in config:
        return config
    if rest:
        return {**config, first: _with_name(config[first], rest, name)}
    return {(name if key == first else key): value for key, value in config.items() if key != name}


def _renamed_parts(path: str) -> list[str]:
    parts = path.split(".")
    for old, name in _RENAMED.items():
        if tuple(parts[: len(old)]) == old:
            parts[len(old) - 1] = name
    return parts


def renamed_setting(path: str, value: Any) -> tuple[str, Any]:
    """Return a setting's path and value with the names that earlier versions used replaced by today's."""
    for part in reversed(path.split(".")):
        value = {part: value}
    value = renamed(value)
    for part in (now := _renamed_parts(path)):
        value = value[part]
    return ".".join(now), value


def renamed_assignment(assignment: str) -> str:
    """Return ``PATH=VALUE`` with a path that earlier versions used replaced by today's."""
    path, equals, value = assignment.partition("=")
    return f"{'.'.join(_renamed_parts(path))}{equals}{value}"


def migrate(content: Content, written: Any, where: str) -> Content:
    """Convert ``content`` from the format ``written`` to today's.

    Raises:
        CheckpointError: a format newer than this version reads, or so old that no migration exists.
    """
    if not isinstance(written, int) or written > FORMAT:
        raise CheckpointError(
            f"{where}: checkpoint format {written!r} is newer than {FORMAT}, the newest that this version reads: "
            "upgrade dragoman"
        )
    for number in range(written, FORMAT):
        if number not in MIGRATIONS:
            raise CheckpointError(
                f"{where}: checkpoint format {written} is too old; nothing carries format {number} over"
            )
        content = MIGRATIONS[number](content)
    return content

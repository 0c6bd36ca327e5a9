"""Checkpoints of earlier formats, brought up to today's: one function for each step from format N to N+1.

A change of what a checkpoint holds (a parameter renamed, a field of the configuration moved) raises ``FORMAT`` by one
and adds the function that carries an old checkpoint over. Old files stay as they are; they are changed in memory after
loading.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from dragoman.errors import CheckpointError

FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a checkpoint holds, as plain data and tensors."""

    config: dict[str, Any]
    """The run's resolved configuration."""
    progress: dict[str, Any]
    """Step, tokens and all else that a run knows besides tensors."""
    tensors: dict[str, dict[str, Tensor]]
    """Tensors by part (``model``, ``optimizer``, ``average``) and name; only the parts that were asked for."""


def _products(content: Content) -> Content:
    """Format 2 says who multiplies; before, torch's own choice was the only one, and such a run goes on with it."""
    config = content.config
    if "train" in config:
        config = config | {"train": {"products": "torch"} | config["train"]}
    return replace(content, config=config)


def _renamed(content: Content) -> Content:
    """Format 3 uses the field's names in configurations."""
    return replace(content, config=renamed(content.config))


MIGRATIONS: dict[int, Callable[[Content], Content]] = {1: _products, 2: _renamed}
"""Format N -> the function that makes format N+1 of it."""


def renamed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a run's configuration with the names that earlier versions used replaced by today's.

    Run files and ``config.yaml`` carry no format number, so this accepts either spelling and leaves today's as it is.
    """
    config = dict(config)
    match config:
        case {"data": {"kind": "data"} as data}:
            config["data"] = {**data, "kind": "pairs"}
    match config:
        case {"init": {"run": _} as start}:
            del config["init"]
            config["start_from"] = {name: value for name, value in start.items() if name != "kind"}
        case {"init": None}:
            del config["init"]
            config["start_from"] = None
    match config:
        case {"model": {"silent": suppressed, **model}}:
            config["model"] = {**model, "suppressed": suppressed}
    return config


_RENAMED_PATHS = {"init": "start_from", "model.silent": "model.suppressed"}


def renamed_assignment(assignment: str) -> str:
    """Return ``PATH=VALUE`` with a path that earlier versions used replaced by today's."""
    path, equals, value = assignment.partition("=")
    for old, new in _RENAMED_PATHS.items():
        if path == old or path.startswith(f"{old}."):
            return f"{new}{path.removeprefix(old)}{equals}{value}"
    return assignment


def migrate(content: Content, written: Any, where: str) -> Content:
    """``content``, written in the format ``written``, as today's format has it.

    Raises:
        CheckpointError: a format that is newer than this version, or so old that nothing carries it over.
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

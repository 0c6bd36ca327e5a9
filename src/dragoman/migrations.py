"""Migrations of checkpoints of earlier formats: one function for each step from format N to N+1.

Any change to the content of a checkpoint (a parameter renamed, a field of the configuration moved) increments
``FORMAT`` and adds a function that converts the previous format. Old files are not modified; they are converted in
memory after loading.
"""

from collections.abc import Callable
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
    match config:
        case {"train": {"optimizer": {} as optimizer, **train}}:
            config["train"] = {**train, "optimizer": _weight_decay(optimizer)}
    return config


def _weight_decay(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Rename ``decay`` of an optimizer, and of the one within it, to ``weight_decay``."""
    found = {("weight_decay" if name == "decay" else name): value for name, value in optimizer.items()}
    match found:
        case {"others": {} as others}:
            found["others"] = _weight_decay(others)
    return found


_RENAMED_PATHS = {
    "init": "start_from",
    "model.silent": "model.suppressed",
    "train.optimizer.decay": "train.optimizer.weight_decay",
    "train.optimizer.others.decay": "train.optimizer.others.weight_decay",
}


def renamed_setting(path: str, value: Any) -> tuple[str, Any]:
    """Return a setting's path and value with the names that earlier versions used replaced by today's."""
    parts = path.split(".")
    for part in reversed(parts):
        value = {part: value}
    value, now = renamed(value), []
    for _ in parts:
        ((part, value),) = value.items()
        now.append(part)
    return ".".join(now), value


def renamed_assignment(assignment: str) -> str:
    """Return ``PATH=VALUE`` with a path that earlier versions used replaced by today's."""
    path, equals, value = assignment.partition("=")
    for old, new in _RENAMED_PATHS.items():
        if path == old or path.startswith(f"{old}."):
            return f"{new}{path.removeprefix(old)}{equals}{value}"
    return assignment


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

"""Part of the model that each operation belongs to, forward and backward, for any model.

The parts of a block are fields of it, so the path of a module tells: ``decoder.blocks.3.mlp.up`` is a feed-forward.
Autograd numbers its nodes as the forward pass creates them; so the number of the node that runs tells where in the
forward pass it was created.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

PARTS: tuple[str, ...] = ("embedding", "attention", "feed_forward", "output", "other")

_BY_NAME = {
    "embed": "embedding",
    "source_embed": "embedding",
    "inputs": "embedding",
    "output": "output",
    "head": "output",
    "mixer": "attention",
    "cross": "attention",
    "mlp": "feed_forward",
}
"""Part by the name of a module; the outermost name that is known decides."""
_RESIDUALS = {"mixer_residual": "attention", "cross_residual": "attention", "mlp_residual": "feed_forward"}
"""Part of products that a block computes directly, inside a residual connection."""


def part_of(path: str, *, multiplies: bool = False) -> str:
    """Return the part of an operation of the module at ``path``; ``multiplies``: it is a product or a recurrence,
    which stands in no norm, residual connection or dropout. Outside of all modules only the loss multiplies."""
    names = path.split(".")
    for name in names:
        if name in _BY_NAME:
            return _BY_NAME[name]
    if not multiplies:
        return "other"
    if not path:
        return "output"
    return next((_RESIDUALS[name] for name in names if name in _RESIDUALS), "attention")


class Whereabouts:
    """Path of the module that runs, or whose derivative runs."""

    def __init__(self, model: nn.Module):
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.stack: list[str] = []
        """Paths of the modules that are running, the innermost last."""
        self.numbers, self.places = [0], [""]
        """Numbers of autograd's nodes at which another module began or went on, and its path."""

    @property
    def forward(self) -> bool:
        """True in the forward pass."""
        return torch._C._current_autograd_node() is None

    @property
    def recomputing(self) -> bool:
        """True where the backward pass runs modules again: activation checkpointing."""
        return bool(self.stack) and not self.forward

    @property
    def path(self) -> str:
        node = torch._C._current_autograd_node()
        if node is None or self.stack:
            return self.stack[-1] if self.stack else ""
        number = node._sequence_nr()
        return "" if number >= 2**63 else self.places[bisect_right(self.numbers, number) - 1]

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow the modules inside the block."""
        hooks = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        if id(module) in self.paths:
            self.stack.append(self.paths[id(module)])
            self._note()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in self.paths and self.stack:
            self.stack.pop()
            self._note()

    def _note(self) -> None:
        self.numbers.append(torch.autograd._get_sequence_nr())  # pyright: ignore[reportPrivateImportUsage]
        self.places.append(self.stack[-1] if self.stack else "")

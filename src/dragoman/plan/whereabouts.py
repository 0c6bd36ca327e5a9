"""Module that each operation belongs to, forward and backward, for any model.

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

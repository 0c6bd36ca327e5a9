"""Blocks: the layers of a model, found by watching it, and run again by themselves on other inputs.

B rows, T positions, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.finding import NotApplicable
from dragoman.inspect.doctor.observe import floats
from dragoman.inspect.doctor.subject import ExaminedModel


@dataclass(frozen=True)
class BlockCall:
    """One run of a block."""

    name: str
    module: nn.Module
    arguments: tuple
    named: dict[str, Any]
    key: int | str
    """Position or name of the argument that holds the residual stream."""
    x: Tensor
    y: Tensor

    def replay(self, x: Tensor) -> Tensor:
        """Run the block on another stream; everything else stays as it was."""
        arguments, named = list(self.arguments), dict(self.named)
        if isinstance(self.key, int):
            arguments[self.key] = x
        else:
            named[self.key] = x
        return stream(self.module(*arguments, **named), self.x)


def stream(result: Any, like: Tensor) -> Tensor:
    """Return the tensor of a block's result that has the shape of its input.

    Raises:
        NotApplicable: there is none.
    """
    for each in floats(result):
        if each.shape == like.shape:
            return each
    raise NotApplicable("its layers do not map vectors to vectors of the same width")


def find_blocks(subject: ExaminedModel) -> list[list[BlockCall]]:
    """Return each stack of layers, as runs in the order of depth.

    Raises:
        NotApplicable: the model has no list of layers.
    """
    stacks: dict[str, list[BlockCall]] = {}
    hooks = []
    for path, holder in _holders(subject.model):
        stacks[path] = []
        for name, module in holder.named_children():
            full = f"{path}.{name}" if path else name
            hooks.append(module.register_forward_hook(_recorder(stacks[path], full), with_kwargs=True))
    try:
        with torch.no_grad():
            subject.run()
    finally:
        for hook in hooks:
            hook.remove()
    found = [calls for calls in stacks.values() if calls]
    if not found:
        raise NotApplicable("no list of layers was found in it")
    return found


def _holders(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the lists of layers that stand in no other list of layers."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        fewest = {nn.ModuleList: 1, nn.Sequential: 2}.get(type(module))
        alike = (
            fewest is not None
            and len([*module.children()]) >= fewest
            and all(
                any(True for _ in child.parameters()) and any(True for _ in child.children())
                for child in module.children()
            )
        )
        if alike and not any(path.startswith(f"{outer}.") for outer, _ in found):
            found.append((path, module))
    return found


def _recorder(calls: list[BlockCall], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple, named: dict[str, Any], result: Any) -> None:
        pairs: list[tuple[int | str, Any]] = [*enumerate(arguments), *named.items()]
        for key, value in pairs:
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 2:
                try:
                    y = stream(result, value)
                except NotApplicable:
                    return
                calls.append(BlockCall(name, module, arguments, named, key, value.detach(), y.detach()))
                return

    return hook

"""Checks that a fast path makes before it replaces a module.

A kernel supports the classes it was written for, not their subclasses: a subclass may override anything, and a kernel
that computes the base class instead is silently wrong. So kernels check exact types and overridden methods, instead of
trusting flags that a new class may forget to set.
"""

from collections.abc import Mapping
from typing import TypeGuard, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def overrides(part: object, base: type, *methods: str) -> bool:
    """Return whether ``part`` overrides one of the ``methods`` of ``base``."""
    own = vars(part)
    return any(name in own or getattr(type(part), name) is not getattr(base, name) for name in methods)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks are registered on ``module``; they run only where the module itself is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def hooks_of(model: nn.Module) -> list[Mapping]:
    """Return the tables of hooks of all modules of ``model``: any of them is true as soon as a hook is registered."""
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [getattr(module, name) for module in model.modules() for name in tables]


def is_exactly(module: nn.Module, *types: type[M]) -> TypeGuard[M]:
    """Return whether ``module`` is of one of these types, and of no subclass."""
    return type(module) in types


def is_plain(module: nn.Module, *types: type[M]) -> TypeGuard[M]:
    """Return whether ``module`` is exactly of one of these types and has no hooks."""
    return is_exactly(module, *types) and not has_hooks(module)

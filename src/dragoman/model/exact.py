"""Questions that a fast path asks of a part before it computes in that part's place.

A kernel knows the classes it was written for, not their subclasses: a subclass may override anything, and a kernel that
computes what the base class would have said is silently wrong. So kernels ask for exact types, and for what a class
overrides, instead of trusting flags that a new class may forget to set.
"""

from typing import TypeGuard, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def overrides(part: object, base: type, *methods: str) -> bool:
    """Tell whether ``part`` has another one of these methods than ``base`` has."""
    own = vars(part)
    return any(name in own or getattr(type(part), name) is not getattr(base, name) for name in methods)


def has_hooks(module: nn.Module) -> bool:
    """Tell whether hooks are registered on ``module``, which run only where the module itself is called."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def is_exactly(module: nn.Module, *types: type[M]) -> TypeGuard[M]:
    """Tell whether ``module`` is of one of these types, and of no subclass."""
    return type(module) in types


def is_plain(module: nn.Module, *types: type[M]) -> TypeGuard[M]:
    """Tell whether ``module`` is exactly of one of these types, and nobody listens to it."""
    return is_exactly(module, *types) and not has_hooks(module)

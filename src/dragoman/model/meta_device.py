"""Models on PyTorch's meta device: shapes without numbers, to count them, to check sizes, or to plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build what is built inside the block on the meta device, without drawing initial values."""
    with torch.device("meta"), _NoInitialValues():
        yield


class _NoInitialValues(TorchFunctionMode):
    """Draws and scales no initial values.

    On the meta device PyTorch does both in Python, and imports its compiler or a computer algebra system for it, which
    takes a second or more.
    """

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _CHANGES_OF_VALUES or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


_CHANGES_OF_VALUES = frozenset(
    {Tensor.normal_, Tensor.uniform_, Tensor.mul_, Tensor.div_, Tensor.__imul__, Tensor.__itruediv__}
)

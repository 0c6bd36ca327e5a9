"""Record a decoder's attention to its source, without changing its output.

B rows, H heads, T target tokens, S source tokens.
"""

import copy
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn


def attention_taps(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs are each decoder layer's attention weights to the source, first layer first."""
    return [module for name, module in model.named_modules() if name.endswith(".cross.weights")]


@contextmanager
def recording_attention(taps: Sequence[nn.Module], recorded: list[Tensor]) -> Iterator[None]:
    """Append to ``recorded`` the weights (B, H, T, S) of each tap, in the order of the forward pass.

    Forward passes in other threads are not recorded. On exit the hooks are removed.
    """

    mine = threading.get_ident()

    def record(_: nn.Module, __: object, weights: Tensor) -> None:
        if threading.get_ident() == mine:
            recorded.append(weights)

    hooks = [tap.register_forward_hook(record) for tap in taps]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class HookedTwin(NamedTuple):
    """A copy of a model that shares its tensors, and the lock of whoever attaches hooks to it."""

    model: nn.Module
    lock: threading.Lock


def twin_of(model: nn.Module) -> HookedTwin:
    """Return the twin of a model, made at the first call: hooks on it do not reach threads that run the model."""
    with _making:
        if model not in _twins:
            tensors = itertools.chain(model.parameters(), model.buffers())
            _twins[model] = HookedTwin(
                copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}), threading.Lock()
            )
        return _twins[model]


_twins: WeakKeyDictionary[nn.Module, HookedTwin] = WeakKeyDictionary()
_making = threading.Lock()

"""Tensors without values: a step runs on shapes alone, on a device that need not exist here.

Ids, masks and positions keep their values, so that what depends on them (padding, documents that share a row, the
keys that a query may see) is as in a real step. What would depend on the values of vectors is as expected: experts get
equal shares of the tokens, and masks that nobody knows are True everywhere.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

LARGEST_KNOWN = 1 << 20
"""Most elements of a tensor of whole numbers or truth values that keeps its values."""

FEW_KNOWN = 4096
"""Most elements of known arguments whose result is computed without asking for its shape first."""

aten = torch.ops.aten


def shape_mode() -> FakeTensorMode:
    """Return the mode in which new tensors have no values."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def without_values(model: nn.Module, device: torch.device) -> None:
    """Put tensors without values, which say that they are on ``device``, in the place of those of ``model``, which is
    usually on the meta device. Shared parameters stay shared. Call inside ``shape_mode``."""
    made: dict[int, Tensor] = {}

    def instead(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for held in cast(list[dict[str, Any]], [module._parameters, module._buffers, module.__dict__]):
            held.update({name: instead(value) for name, value in held.items() if isinstance(value, Tensor)})


def inputs_on(batch: Any, device: torch.device) -> Any:
    """Return the tensors of ``batch``, without the values of floating-point ones. Call inside ``shape_mode``."""

    def instead(tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    return pytree.tree_map(instead, batch)


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on shapes; on values as well, where all of its arguments are known whole numbers."""
    given = list(tensors_in((args, kwargs)))
    known = all(map(_keeps_values, given))
    if func.overloadpacket in _EXPECTED:
        return _with_values(func, args, kwargs) if known else _EXPECTED[func.overloadpacket](func, args, kwargs)
    if known and given and func.overloadpacket not in _OF_ANY_SIZE and sum(t.numel() for t in given) <= FEW_KNOWN:
        found = _with_values(func, args, kwargs)  # at once: shapes of so little cost more than values
        if _is_small(found):
            return found
    found = func(*args, **kwargs)
    return _with_values(func, args, kwargs) if known and _is_small(found) else found


def _with_values(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with unset_fake_temporarily():
        return func(*args, **kwargs)


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested arguments."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for below in tree:
            yield from tensors_in(below)
    elif isinstance(tree, dict):
        for below in tree.values():
            yield from tensors_in(below)


def _keeps_values(tensor: Tensor) -> bool:
    return not isinstance(tensor, FakeTensor) and not tensor.is_floating_point()


def _is_small(found: Any) -> bool:
    outputs = list(tensors_in(found))
    return bool(outputs) and all(
        not t.is_floating_point() and not t.is_complex() and t.numel() <= LARGEST_KNOWN for t in outputs
    )


# ---- what depends on values -------------------------------------------------------------------------


def _scalar(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the value of an unknown number: a truth value is True, and a number 1."""
    dtype = args[0].dtype
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


def _nonzero(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return the places of all elements."""
    shape = args[0].shape
    return args[0].new_empty((math.prod(shape), len(shape)), dtype=torch.int64)


def _bincount(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return equal shares, which have values: how many tokens each expert gets."""
    n = args[0].numel()
    bins = max(1, kwargs.get("minlength", args[2] if len(args) > 2 else 0))
    with unset_fake_temporarily():
        return torch.full((bins,), n // bins) + (torch.arange(bins) < n % bins)


def _index(func: Any, args: Any, kwargs: Any) -> Any:
    """Index by masks as by the places where they are True."""
    indices: list[Any] = []
    for index in args[1]:
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            indices.append(index)
        elif isinstance(index, FakeTensor):
            indices += [index.new_empty(index.numel(), dtype=torch.int64) for _ in index.shape]
        else:
            with unset_fake_temporarily():
                indices += index.nonzero().unbind(1)
    return func(args[0], indices, *args[2:], **kwargs)


def _masked_select(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return all elements."""
    shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
    return args[0].new_empty(math.prod(shape))


RUN = 32
"""Steps of a recurrent layer up to which it is run to see its workspace, which grows evenly from there."""


def _recurrent_layer(func: Any, args: Any, kwargs: Any) -> Any:
    """Return a layer of oneDNN's LSTM or GRU with the workspace that its backward pass needs, which PyTorch's own rule
    for shapes takes to be empty."""
    *outputs, workspace = func(*args, **kwargs)
    x, weights, batch_first = args[0], tuple(tuple(w.shape) for w in args[1:5]), args[14]
    rows, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
    half, most = (_workspace(n, rows, x.shape[2], weights, x.dtype, *args[9:14], args[15]) for n in (RUN // 2, RUN))
    exact = steps <= RUN and _workspace(steps, rows, x.shape[2], weights, x.dtype, *args[9:14], args[15])
    return *outputs, workspace.new_empty(exact or most + (steps - RUN) * (most - half) // (RUN - RUN // 2))


@functools.cache
def _workspace(steps: int, rows: int, width: int, weights: Any, dtype: torch.dtype, *settings: Any) -> int:
    """Return the bytes of the workspace of a short layer, which is run."""
    mode, hidden, layers, biases, both, train = settings
    with unset_fake_temporarily(), torch.enable_grad():  # without gradients there is no workspace
        x, state = torch.zeros(steps, rows, width, dtype=dtype), torch.zeros(1, rows, hidden, dtype=dtype)
        given = [torch.zeros(shape, dtype=dtype) for shape in weights]
        found = aten.mkldnn_rnn_layer(
            x, *given, state, state, False, [], mode, hidden, layers, biases, both, False, train
        )
    return found[3].numel()


_EXPECTED: dict[Any, Callable[[Any, Any, Any], Any]] = {
    aten._local_scalar_dense: _scalar,
    aten.nonzero: _nonzero,
    aten.bincount: _bincount,
    aten.index: _index,
    aten.masked_select: _masked_select,
    aten.mkldnn_rnn_layer: _recurrent_layer,
    aten.equal: lambda func, args, kwargs: True,
}
"""Operations whose result or its shape depends on values that are unknown."""

_OF_ANY_SIZE = {
    *(aten.new_empty, aten.new_empty_strided, aten.new_full, aten.new_ones, aten.new_zeros),
    *(aten.constant_pad_nd, aten.one_hot, aten.repeat, aten.repeat_interleave),
}
"""Operations whose result may be large although their arguments are small."""

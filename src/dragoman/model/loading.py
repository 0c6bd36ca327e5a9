"""Loading of a model: its weights are neither drawn before they are read nor copied afterwards."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Uninitialized(TorchFunctionMode):
    """Inside this block, writes to parameters in place are skipped.

    A model that is built to be loaded gets all its weights from the checkpoint. Drawing initial ones takes longer than
    reading those. Buffers are computed as ever.
    """

    WRITES = frozenset(
        {"uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_", "zeros_", "zero_", "ones_", "fill_"}
        | {"mul_", "div_", "__imul__", "__itruediv__"}
    )
    """Names of functions that initialize a tensor in place, or scale what was drawn."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and name in self.WRITES:
            return target
        return func(*args, **kwargs)


def adopt_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Same as ``load_state_dict``, without a copy of what fits: parameters take the tensors as they are.

    These are usually mapped from a file, which is then read once, where it is needed.
    """
    if model.state_dict().keys() != weights.keys():
        model.load_state_dict(dict(weights))  # raises, and names what differs
    rest = dict(weights)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        given = weights[name]
        if (given.shape, given.dtype, given.device) == (parameter.shape, parameter.dtype, parameter.device):
            parameter.data = rest.pop(name)
    model.load_state_dict(rest, strict=False)


def load(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a model and give it these weights."""
    with Uninitialized():
        model = build()
    adopt_weights(model, weights)
    return model

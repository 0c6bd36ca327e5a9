"""Products in a loop over steps, whose weight's gradient is one product over all steps instead of a sum of many.

Autograd would multiply and add a matrix as large as the weight at each step, which is bound by memory. Here each
step's input and upstream gradient are kept, and multiplied once after the last of them.

B rows, K inputs, N outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dragoman.model.exact import is_plain
from dragoman.model.linear import Linear, Product

StepFunction = Callable[[Tensor], Tensor]
"""Function of one step's input (B, K) that returns (B, N)."""


class StepProduct:
    """x W^T + b for the steps of one loop. The slow twin is ``product`` itself, at each step."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None, product: Product):
        self.product, self.inputs, self.upstream = product, [], []
        self.weight = weight.detach().to(_dtype_of_products(weight))  # once, where autocast would at each step
        self.bias = None if bias is None else bias.detach().to(self.weight.dtype)
        self.for_bias = bias is not None
        self.handle: Tensor = _Collected.apply(weight, bias, self)

    def __call__(self, x: Float[Tensor, "B K"]) -> Float[Tensor, "B N"]:
        return _Step.apply(x, self.handle, self)


def _dtype_of_products(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    cast = kind in ("cpu", "cuda") and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if cast else weight.dtype


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, handle: Tensor, loop: StepProduct) -> Tensor:
        ctx.loop, ctx.dtype = loop, x.dtype
        x = x.to(loop.weight.dtype)
        ctx.save_for_backward(x)
        return loop.product(x, loop.weight, loop.bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        loop, (x,) = ctx.loop, ctx.saved_tensors
        loop.inputs.append(x)
        loop.upstream.append(upstream)
        return loop.product(upstream, loop.weight.t(), None).to(ctx.dtype), None, None


class _Collected(torch.autograd.Function):
    """An empty tensor that all steps read, so that its backward runs once those of all steps have run."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, loop: StepProduct) -> Tensor:
        ctx.loop, ctx.dtype = loop, weight.dtype
        ctx.set_materialize_grads(False)
        return weight.new_empty(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        loop = ctx.loop
        if not loop.inputs:
            return None, None, None
        x, upstream = torch.cat(loop.inputs), torch.cat(loop.upstream)
        loop.inputs, loop.upstream = [], []
        by_weight = loop.product(upstream.t(), x.t(), None).to(ctx.dtype)
        return by_weight, upstream.sum(0, dtype=ctx.dtype) if loop.for_bias else None, None


def in_loop(layer: nn.Module) -> StepFunction:
    """Return ``layer`` as a function to call at each step of one loop."""
    if torch.is_grad_enabled() and is_plain(layer, nn.Linear, Linear) and layer.weight.requires_grad:
        return step_product(layer.weight, layer.bias, layer.product if isinstance(layer, Linear) else None)
    return layer


def step_product(weight: Tensor, bias: Tensor | None, product: Product | None = None) -> StepFunction:
    """Return x W^T + b as a function to call at each step of one loop."""
    return StepProduct(weight, bias, product or torch.nn.functional.linear)

"""Linear layers whose three products, one forward and two backward, run in the fastest library on this machine.

On CPUs torch multiplies float32 matrices by MKL, which uses only half the width of the vector units on CPUs of other
makers; oneDNN, also part of torch, does not. The choice is measured when a run begins (machine.choose_products) and
written into its configuration, so that a resumed run multiplies as before.

R rows, K inputs, N outputs.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dragoman.machine import Products, onednn_linear
from dragoman.model.ops import products as kernels

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""x (..., K), weight (N, K), bias (N) or None -> x weight^T + bias (..., N), with a derivative."""

plain: Product = F.linear
"""torch's own product: the reference for the others."""


class Multiplying(nn.Module):
    """Base of modules that multiply by ``product``, a linear layer among them."""

    product: Product = staticmethod(plain)


class Linear(Multiplying, nn.Linear):
    """x W^T + b, multiplied by ``product``."""

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if kernels.runs_in_bfloat16(x, self.weight):
            return kernels.NarrowLinear.apply(x, self.weight, self.bias)
        return self.product(x, self.weight, self.bias)


def multiply_by(model: nn.Module, products: Products) -> None:
    """Set the library that every linear and recurrent layer of ``model`` multiplies by."""
    assert products != "auto", "chosen when the run is resolved"
    for module in model.modules():
        if isinstance(module, Multiplying):
            module.product = PRODUCTS[products]


def onednn(x: Float[Tensor, "*R K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None = None) -> Tensor:
    """Return x W^T + b by oneDNN for float32 on a CPU outside autocast, otherwise by torch's own product."""
    float32 = x.dtype == weight.dtype == torch.float32
    if not float32 or x.device.type != "cpu" or not x.numel() or torch.is_autocast_enabled("cpu"):
        return plain(x, weight, bias)
    return _OneDnnLinear.apply(x, weight, bias)


PRODUCTS: dict[Products, Product] = {"torch": plain, "onednn": onednn}


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = upstream.flatten(0, -2)
        return (
            onednn_linear(upstream, weight.t()) if for_x else None,
            transposed_product(rows, x.flatten(0, -2)) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def transposed_product(a: Float[Tensor, "R N"], b: Float[Tensor, "R K"]) -> Float[Tensor, "N K"]:
    """Return a^T b, the gradient of a weight. oneDNN is up to a quarter faster with the shorter side as its rows."""
    if a.shape[1] > b.shape[1]:
        return onednn_linear(b.t(), a.t()).t()
    return onednn_linear(a.t(), b.t())

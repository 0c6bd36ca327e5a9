"""Linear layers of a training step in bfloat16 on a CPU: two products by oneDNN, and the gradient of the weight by a
kernel in C (``native/gradient.c``).

oneDNN computes that gradient a tenth slower than the other products, and in bfloat16, which is then converted for the
optimizer. The kernel sums it in float32, together with that of the bias. Its conditions are as in ``elementwise.py``.

R rows, K inputs, N outputs.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.machine import onednn_linear
from dragoman.model.ops import elementwise
from dragoman.model.ops.elementwise import REGISTER
from dragoman.native.library import library


class NarrowLinear(torch.autograd.Function):
    """x weight^T + bias in bfloat16. The slow twin is ``linear.plain`` under autocast."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*R K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"] | None
    ) -> Float[Tensor, "*R N"]:
        narrow, given = weight.bfloat16(), x.bfloat16().contiguous()
        ctx.save_for_backward(given, narrow)
        ctx.dtype = x.dtype
        return onednn_linear(given, narrow, None if bias is None else bias.bfloat16())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x, weight), (for_x, for_weight, for_bias) = ctx.saved_tensors, ctx.needs_input_grad
        upstream = upstream.contiguous()
        by_x = (upstream @ weight).to(ctx.dtype) if for_x else None
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        by_bias = weight.new_zeros(len(weight), dtype=torch.float32) if for_bias else None
        if by_weight is not None:
            add_gradient(upstream, x, by_weight, by_bias)
        elif by_bias is not None:
            by_bias = upstream.flatten(0, -2).sum(0, dtype=torch.float32)
        return by_x, by_weight, by_bias


def runs_in_bfloat16(x: Float[Tensor, "*R K"], weight: Float[Tensor, "N K"]) -> bool:
    """Return whether autocast runs this product in bfloat16, gradients are needed, and the kernel can compute them."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and elementwise.uses_bfloat16(x.device)):
        return False
    return x.is_floating_point() and elementwise.supports_strided(x) and supports_gradient(weight)


def supports_gradient(by_weight: Float[Tensor, "N K"], *narrow: Tensor) -> bool:
    """Return whether the kernel can add to this gradient from bfloat16 tensors, and is faster than oneDNN."""
    if not elementwise.supports(by_weight, *narrow):
        return False
    (N, K), kernels = by_weight.shape, library()
    fits = N % REGISTER == 0 and K % (2 * REGISTER) == 0 and by_weight.dtype == torch.float32
    known = all(t.dtype == torch.bfloat16 for t in narrow)
    return fits and known and kernels.multiplies_bfloat16 and not kernels.multiplies_matrices


def add_gradient(
    upstream: Float[Tensor, "*R N"],
    x: Float[Tensor, "*R K"],
    by_weight: Float[Tensor, "N K"],
    by_bias: Float[Tensor, " N"] | None = None,
) -> None:
    """Add upstream^T x to ``by_weight``, and the sum of ``upstream`` over rows to ``by_bias``: bfloat16 to float32."""
    N, K = by_weight.shape
    bias = None if by_bias is None else by_bias.data_ptr()
    elementwise.kernel_library().add_gradient(
        upstream.data_ptr(), x.data_ptr(), x.numel() // K, N, K, by_weight.data_ptr(), bias
    )  # fmt: skip

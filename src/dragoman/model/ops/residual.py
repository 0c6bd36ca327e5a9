"""Norm, dropout and residual sum between the sublayers of a training step on a CPU, by kernels in C
(``native/residual.c``).

The residual sum is float32; inputs and outputs of sublayers are bfloat16 or float32. So a norm returns both the sum and
its normed form, and takes both of their gradients at once. The kernels' conditions, and their differences from their
slow twins in ``norm.py``, are as in ``elementwise.py``.

N rows, D width.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.ops import elementwise
from dragoman.model.ops.elementwise import REGISTER, DropoutDraw, kernel, supports, supports_type, uses_bfloat16

# ---- from the sum to a sublayer -----------------------------------------------------------------------


def supports_norm(x: Float[Tensor, "*N D"], weight: Float[Tensor, " D"]) -> bool:
    """Return whether the kernels can make what sublayers read from ``x`` by a norm of ``weight``."""
    known = uses_bfloat16(x.device) or supports_type(x)
    return known and _fit(x, weight) and supports(x, weight)


def supports_cast(x: Float[Tensor, "*N D"]) -> bool:
    """Return whether sublayers read bfloat16 now, and the kernels can add the gradients of both forms of ``x``."""
    return uses_bfloat16(x.device) and _fit(x) and supports(x)


class CastFunction(torch.autograd.Function):
    """x as it is, and in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "*N D"]) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
        return x.view_as(x), x.bfloat16()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, carried: Tensor, upstream: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        carried, upstream = carried.contiguous(), upstream.contiguous()
        by_x = torch.empty_like(carried)
        elementwise.kernel_library().add_narrow(carried.data_ptr(), upstream.data_ptr(), by_x.numel(), by_x.data_ptr())
        return by_x


class RmsNormFunction(torch.autograd.Function):
    """x as it is, and x / root mean square * weight in the type of products."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*N D"], weight: Float[Tensor, " D"], eps: float
    ) -> tuple[Float[Tensor, "*N D"], Float[Tensor, "*N D"]]:
        dtype = torch.bfloat16 if uses_bfloat16(x.device) else x.dtype
        y, scale, D = torch.empty_like(x, dtype=dtype), x.new_empty(x.shape[:-1]), x.shape[-1]
        kernel("rms_norm", dtype)(
            x.data_ptr(), weight.data_ptr(), scale.numel(), D, eps, y.data_ptr(), scale.data_ptr()
        )
        ctx.save_for_backward(x, weight, scale)
        return x.view_as(x), y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, carried: Tensor, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, scale = ctx.saved_tensors
        carried, upstream = carried.contiguous(), upstream.contiguous()
        by_x, by_weight = torch.empty_like(x), torch.empty_like(weight)
        given = (t.data_ptr() for t in (upstream, carried, x, weight, scale))
        kernel("rms_norm_gradient", upstream.dtype)(
            *given, scale.numel(), x.shape[-1], by_x.data_ptr(), by_weight.data_ptr()
        )
        return by_x, by_weight, None


# ---- from a sublayer to the sum -----------------------------------------------------------------------


def supports_sum(x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"], *weights: Float[Tensor, " D"]) -> bool:
    """Return whether the kernels can add the sublayer's output ``y`` to ``x``, and norm the sum by ``weights``."""
    return supports_type(y) and x.shape == y.shape and _fit(x, *weights) and supports(x, y, *weights)


def _fit(x: Float[Tensor, "*N D"], *weights: Float[Tensor, " D"]) -> bool:
    exact = all(t.dtype == torch.float32 for t in (x, *weights))
    return not torch.compiler.is_compiling() and exact and x.shape[-1] % (2 * REGISTER) == 0


class AddFunction(torch.autograd.Function):
    """residual_scale x + dropout(y)."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*N D"], y: Float[Tensor, "*N D"], residual_scale: float, rate: float
    ) -> Float[Tensor, "*N D"]:
        ctx.residual_scale, ctx.drawn, ctx.dtype = residual_scale, DropoutDraw.of(rate), y.dtype
        total = torch.empty_like(x)
        kernel("add_dropped", y.dtype)(
            x.data_ptr(), y.data_ptr(), x.numel(), residual_scale, ctypes.byref(ctx.drawn), total.data_ptr()
        )  # fmt: skip
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        upstream = upstream.contiguous()
        by_y = torch.empty_like(upstream, dtype=ctx.dtype)
        kernel("add_dropped_gradient", ctx.dtype)(
            upstream.data_ptr(), by_y.numel(), ctypes.byref(ctx.drawn), by_y.data_ptr()
        )
        return upstream if ctx.residual_scale == 1 else ctx.residual_scale * upstream, by_y, None, None


class AddLayerNormFunction(torch.autograd.Function):
    """(s - mean) / std * weight + bias, where s = residual_scale x + dropout(y)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*N D"],
        y: Float[Tensor, "*N D"],
        residual_scale: float,
        rate: float,
        weight: Float[Tensor, " D"],
        bias: Float[Tensor, " D"] | None,
        eps: float,
    ) -> Float[Tensor, "*N D"]:
        ctx.residual_scale, ctx.drawn, ctx.dtype, ctx.biased = (
            residual_scale,
            DropoutDraw.of(rate),
            y.dtype,
            bias is not None,
        )
        D = x.shape[-1]
        total, normed, (mean, scale) = torch.empty_like(x), torch.empty_like(x), x.new_empty(2, x.numel() // D)
        kernel("add_layer_norm", y.dtype)(
            x.data_ptr(), y.data_ptr(), residual_scale, ctypes.byref(ctx.drawn), weight.data_ptr(),
            None if bias is None else bias.data_ptr(), len(mean), D, eps,
            *(t.data_ptr() for t in (total, mean, scale, normed)),
        )  # fmt: skip
        ctx.save_for_backward(total, mean, scale, weight)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total, mean, scale, weight = ctx.saved_tensors
        upstream, by_x, by_y = (
            upstream.contiguous(),
            torch.empty_like(total),
            torch.empty_like(total, dtype=ctx.dtype),
        )
        by_weight, by_bias = torch.empty_like(weight), torch.empty_like(weight)
        kernel("add_layer_norm_gradient", ctx.dtype)(
            *(t.data_ptr() for t in (upstream, total, mean, scale, weight)), ctx.residual_scale,
            ctypes.byref(ctx.drawn),
            len(mean), len(weight), *(t.data_ptr() for t in (by_x, by_y, by_weight, by_bias)),
        )  # fmt: skip
        return by_x, by_y, None, None, by_weight, by_bias if ctx.biased else None, None

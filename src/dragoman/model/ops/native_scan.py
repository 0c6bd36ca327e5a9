"""The selective scan of Mamba in float32 on a CPU, by a kernel in C (``native/scan.c``). The slow twin is
``selective_scan.py``.

The kernel keeps the states of a channel in registers, where PyTorch writes and reads a tensor of N states for each
channel and token several times. It serves training and, one token at a time, decoding.

B rows, T tokens, E channels, N states of a channel.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.ops.elementwise import REGISTER, kernel_library, supports_strided

MOST_STATES = 256
"""States of a channel that the kernel keeps on its stack."""


class ScanStruct(ctypes.Structure):
    """``Scan`` of native/scan.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "step", "a", "b", "c", "first", "starts")),
        *((name, ctypes.c_int64) for name in ("B", "T", "E", "N", "stride", "shift")),
        *((name, ctypes.c_void_p) for name in ("y", "last", "begins")),
    ]


class ScanGradientStruct(ctypes.Structure):
    """``ScanGradient`` of native/scan.c."""

    __slots__ = ()
    _fields_ = [(name, ctypes.c_void_p) for name in ("y", "last", "x", "step", "a", "b", "c", "first")]


def supports_scan(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor | None, starts: Tensor | None
) -> bool:
    """Return whether the kernel can compute this scan: float32 on a CPU, in channels that fill whole registers."""
    if torch.compiler.is_compiling():  # first: a check of sizes would specialize the compiled program for them
        return False
    given = (x, step, a, b, c) if first is None else (x, step, a, b, c, first)
    return (
        x.shape[2] % REGISTER == 0
        and len(a) <= MOST_STATES
        and all(t.dtype == torch.float32 for t in given)
        and supports_strided(*given)
    )


class NativeScanFunction(torch.autograd.Function):
    """The scan with its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        step: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        first: Tensor | None,
        starts: Tensor | None,
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B N E"]]:
        kernels = kernel_library()
        x, step, a = x.contiguous(), step.contiguous(), a.contiguous()
        b, c = (_strided(t) for t in (b, c))
        if b.stride() != c.stride():
            b, c = b.contiguous(), c.contiguous()
        first = None if first is None else first.contiguous()
        starts = None if starts is None else starts.contiguous()
        (B, T, E), N = x.shape, len(a)
        y, last = torch.empty_like(x), x.new_empty(B, N, E)
        begins = x.new_empty(B, -(-T // kernels.scan_span), N, E) if any(ctx.needs_input_grad) else None
        struct = _struct(x, step, a, b, c, first, starts)
        struct.y, struct.last = y.data_ptr(), last.data_ptr()
        struct.begins = None if begins is None else begins.data_ptr()
        kernels.selective_scan(ctypes.addressof(struct))
        ctx.save_for_backward(x, step, a, b, c, begins, starts)
        ctx.began = first is not None
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_y: Tensor, by_last: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, step, a, b, c, begins, starts = ctx.saved_tensors
        by_y, by_last, kernels = by_y.contiguous(), by_last.contiguous(), kernel_library()
        (B, T, E), N = x.shape, len(a)
        struct = _struct(x, step, a, b, c, None, starts)
        struct.begins = begins.data_ptr()
        slices = -(-E // kernels.scan_slice)
        by_x, by_step, by_first = torch.empty_like(x), torch.empty_like(step), x.new_empty(B, N, E)
        by_a, by_b, by_c = x.new_empty(B, N, E), x.new_empty(slices, B, T, N), x.new_empty(slices, B, T, N)
        found = (by_y, by_last, by_x, by_step, by_a, by_b, by_c, by_first)
        gradient = ScanGradientStruct(*(t.data_ptr() for t in found))
        kernels.selective_scan_gradient(ctypes.addressof(struct), ctypes.addressof(gradient))
        return by_x, by_step, by_a.sum(0), by_b.sum(0), by_c.sum(0), by_first if ctx.began else None, None


def _strided(t: Float[Tensor, "B T N"]) -> Float[Tensor, "B T N"]:
    """Return ``t`` where its tokens are as far apart in every row and between rows, else a copy that is."""
    fits = t.stride(2) == 1 and t.stride(0) == t.shape[1] * t.stride(1)
    return t if fits else t.contiguous()


def _struct(
    x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor | None, starts: Tensor | None
) -> ScanStruct:
    B, T, E = x.shape
    return ScanStruct(
        *(t.data_ptr() for t in (x, step, a, b, c)),
        None if first is None else first.data_ptr(),
        None if starts is None else starts.data_ptr(),
        B, T, E, len(a), b.stride(1), 0 if starts is None or len(starts) == 1 else T,
    )  # fmt: skip

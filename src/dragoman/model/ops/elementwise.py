"""Elementwise operations of a training step in bfloat16 or float32 on a CPU, by kernels in C (``native/``).

PyTorch makes several passes over memory where one is enough, over tensors that have left the cache by then, and further
ones that convert between bfloat16 and float32. Each caller also has the same computation in PyTorch, its slow twin,
which runs in other types, on GPUs, without a C compiler, and in float32 where nothing is learned. The two differ by
rounding, in bfloat16 by PyTorch's intermediate one.

B batch, T length, H heads, C channels of one head, D width, N rows, V vocabulary.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.native.library import FLOAT32, Library, available, library

REGISTER = 16
"""Largest number of values in a register of the kernels: rows must be a multiple of it."""
SUFFIXES = {torch.bfloat16: "", torch.float32: FLOAT32}
"""Types that the kernels of a training step read and write, and what the names of those kernels end in."""


def supports(*tensors: Tensor) -> bool:
    """Return whether the kernels can read these tensors: contiguous, on the CPU, and not traced by a compiler."""
    if torch.compiler.is_compiling():  # first: a check of sizes would specialize the compiled program for them
        return False
    return all(t.is_contiguous() for t in tensors) and supports_strided(*tensors)


def supports_strided(*tensors: Tensor) -> bool:
    """Same as ``supports``, for kernels that accept strides."""
    if torch.compiler.is_compiling():
        return False
    return all(t.device.type == "cpu" and t.numel() for t in tensors) and available()


def supports_type(*tensors: Tensor) -> bool:
    """Return whether there are kernels for the type of all these tensors: bfloat16, or float32 where gradients are
    needed and autocast leaves it."""
    if torch.compiler.is_compiling():
        return False
    dtype, *others = {t.dtype for t in tensors}
    if others or dtype not in SUFFIXES:
        return False
    if dtype == torch.bfloat16:
        return True
    needed = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return needed and not torch.is_autocast_enabled("cpu")


def supports_rows(*tensors: Tensor) -> bool:
    """Return whether there are kernels for the type of these tensors, whose rows fill whole registers."""
    return supports_type(*tensors) and _supports_whole_rows(*tensors)


def _supports_whole_rows(*tensors: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    return all(t.dim() and t.shape[-1] % REGISTER == 0 for t in tensors) and supports(*tensors)


def uses_bfloat16(device: torch.device) -> bool:
    """Return whether autocast runs products on that device in bfloat16 now."""
    kind = device.type
    return kind == "cpu" and torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


def cast_for_products(x: Tensor) -> Tensor:
    """Convert ``x`` once to the data type of products; otherwise each product would convert it again."""
    return x.bfloat16() if uses_bfloat16(x.device) else x


def kernel_library() -> Library:
    """Return the kernels, set to as many threads as PyTorch uses."""
    found = library()
    found.use_torch_threads()
    return found


def kernel(name: str, dtype: torch.dtype) -> Callable[..., int | None]:
    """Return the kernel of that name for tensors of ``dtype``."""
    return getattr(kernel_library(), name + SUFFIXES[dtype])


# ---- the loss ---------------------------------------------------------------------------------------


def supports_loss(logits: Float[Tensor, "N V"]) -> bool:
    """Return whether the kernel can read these logits, and overwrite them by their gradient."""
    return logits.dtype in SUFFIXES and supports(logits)


def cross_entropy(
    logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], smoothing: float, learning: bool
) -> Float[Tensor, ""]:
    """Return the cross-entropy summed over rows; when ``learning``, overwrite ``logits`` by its gradient.

    The slow twin is ``chunked_loss.CrossEntropyLoss``.

    Raises:
        IndexError: a target that is no entry of the vocabulary.
    """
    losses, targets = torch.empty(len(logits), dtype=torch.float64), targets.long().contiguous()
    wrong = kernel("cross_entropy", logits.dtype)(
        logits.data_ptr(), targets.data_ptr(), *logits.shape, smoothing, learning, losses.data_ptr()
    )
    if wrong:
        target = int(targets[wrong - 1])
        raise IndexError(f"target {target} is out of bounds for a vocabulary of {logits.shape[1]:,} entries")
    return losses.sum().float()


def accumulate(total: Tensor, x: Tensor) -> None:
    """Add ``x``, usually bfloat16, to the float32 ``total``, without the float32 copy that PyTorch would make."""
    if x.dtype == torch.bfloat16 and supports_rows(x) and total.dtype == torch.float32 and supports(total):
        kernel_library().add_narrow(total.data_ptr(), x.data_ptr(), x.numel(), total.data_ptr())
    else:
        total += x


# ---- feed-forward -----------------------------------------------------------------------------------


def supports_relu(x: Tensor) -> bool:
    """Return whether the kernel can read ``x``: bfloat16 alone, since PyTorch is as fast in float32."""
    return x.dtype == torch.bfloat16 and supports_rows(x)


class ReluFunction(torch.autograd.Function):
    """max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_min(0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        upstream, by_x = upstream.contiguous(), torch.empty_like(y)
        kernel_library().relu_gradient(upstream.data_ptr(), y.data_ptr(), y.numel(), by_x.data_ptr())
        return by_x


class SiluGateFunction(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        y = torch.empty_like(gate)
        kernel("silu_gate", y.dtype)(gate.data_ptr(), up.data_ptr(), y.numel(), y.data_ptr())
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up = ctx.saved_tensors
        upstream, by_gate, by_up = upstream.contiguous(), torch.empty_like(gate), torch.empty_like(up)
        pointers = [t.data_ptr() for t in (upstream, gate, up)]
        kernel("silu_gate_gradient", up.dtype)(*pointers, up.numel(), by_gate.data_ptr(), by_up.data_ptr())
        return by_gate, by_up


# ---- attention --------------------------------------------------------------------------------------


class SoftmaxFunction(torch.autograd.Function):
    """Softmax over the keys that a query sees; zeros where it sees none. The slow twin is ``attention.masked_softmax``.

    ``seen`` is the mask; None for all keys, or with ``causal`` for those up to the query's own.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Float[Tensor, "B H Q K"], seen: Bool[Tensor, "#B 1 #Q K"] | None, causal: bool
    ) -> Float[Tensor, "B H Q K"]:
        y, (B, _, Q, K) = torch.empty_like(scores), scores.shape
        seen = None if seen is None else seen.expand(B, 1, Q, K)
        if seen is not None and seen.stride(-1) != 1:
            seen = seen.contiguous()
        mask = (None, 0, 0) if seen is None else (seen.data_ptr(), seen.stride(0), seen.stride(2))
        kernel("softmax", y.dtype)(scores.data_ptr(), *mask, causal, *scores.shape, y.data_ptr())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (y,) = ctx.saved_tensors
        upstream, by_scores, K = upstream.contiguous(), torch.empty_like(y), y.shape[-1]
        pointers = (t.data_ptr() for t in (upstream, y))
        kernel("softmax_gradient", y.dtype)(*pointers, y.numel() // K, K, by_scores.data_ptr())
        return by_scores, None, None


# ---- dropout ----------------------------------------------------------------------------------------


def supports_dropout(x: Tensor) -> bool:
    """Return whether the kernel can read ``x``, with or without gradients: a layer that is computed again must have the
    mask of the first time."""
    return x.dtype in SUFFIXES and _supports_whole_rows(x)


class DropoutDraw(ctypes.Structure):
    """Seed and rate of one dropout: its mask is a function of the seed and an element's index, so no mask is stored."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [("seed", ctypes.c_int64), ("below", ctypes.c_int64), ("factor", ctypes.c_double)]

    @classmethod
    def of(cls, rate: float) -> "DropoutDraw":
        """Draw a seed from the global generator; for a rate of 0, draw nothing."""
        seed = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) if rate else 0
        return cls(seed, round(rate * 2**16), 1 / (1 - rate))


class DropoutFunction(torch.autograd.Function):
    """Zero elements at random and scale the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        ctx.drawn = DropoutDraw.of(rate)
        return _dropped(x, ctx.drawn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _dropped(upstream.contiguous(), ctx.drawn), None


def _dropped(x: Tensor, drawn: DropoutDraw) -> Tensor:
    y = torch.empty_like(x)
    kernel("dropout", x.dtype)(x.data_ptr(), x.numel(), ctypes.byref(drawn), y.data_ptr())
    return y

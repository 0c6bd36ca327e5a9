"""Rotary positions and attention without stored weights, for training in bfloat16 or float32 on a CPU, by
kernels in C (``native/``).

The kernels read heads directly from the output of a linear layer, and write in the layout of the next one's input.
Their conditions, and their differences from PyTorch's results, are as in ``elementwise.py``.

B batch, T length, H query heads, G key/value heads (G divides H), Q/K query and key lengths, C channels of one head.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.ops.elementwise import REGISTER, kernel, supports, supports_strided, supports_type


def supports_heads(*heads: Float[Tensor, "B _ _ C"]) -> bool:
    """Return whether the kernels can read these heads: channels are contiguous and fill whole registers by halves."""
    if torch.compiler.is_compiling():
        return False
    fit = (t.stride(-1) == 1 and t.shape[-1] % (2 * REGISTER) == 0 for t in heads)
    return supports_type(*heads) and all(fit) and supports_strided(*heads)


def contiguous_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def empty_by_token(like: Float[Tensor, "B H T C"]) -> Float[Tensor, "B H T C"]:
    """Return an empty tensor of the shape of ``like`` in the layout of linear layers: heads of a token adjacent."""
    B, H, T, C = like.shape
    return like.new_empty(B, T, H, C).transpose(1, 2)


class HeadsStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [("x", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("text", "token", "head"))]

    @classmethod
    def of(cls, x: Float[Tensor, "B H T C"]) -> "HeadsStruct":
        return cls(x.data_ptr(), x.stride(0), x.stride(2), x.stride(1))


# ---- rotary positions -------------------------------------------------------------------------------


class RotateFunction(torch.autograd.Function):
    """Rotate the pairs of each head's halves. The reference is ``rotary.RotaryEffect``.

    ``cos_sin`` are the cosines and then the sines of C / 2 pairs, for all texts where B of it is 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "B H T C"], cos_sin: Float[Tensor, "#B T C"]) -> Float[Tensor, "B H T C"]:
        ctx.save_for_backward(cos_sin)
        return _rotate(x, x.new_empty(x.shape), cos_sin, back=False)  # one head after the other, as products want them

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (cos_sin,) = ctx.saved_tensors
        return _rotate(contiguous_channels(upstream), empty_by_token(upstream), cos_sin, back=True), None


def supports_rotation(x: Float[Tensor, "B H T C"], cos_sin: Float[Tensor, "#B T R"]) -> bool:
    """Return whether the kernel can rotate ``x``: all of its channels are rotated."""
    return (
        supports_heads(x) and cos_sin.shape[-1] == x.shape[-1] and cos_sin.dtype == torch.float32 and supports(cos_sin)
    )


def _rotate(x: Tensor, y: Tensor, cos_sin: Tensor, *, back: bool) -> Tensor:
    (B, H, T, C), own, ends = x.shape, len(cos_sin) > 1, (HeadsStruct.of(x), HeadsStruct.of(y))
    kernel("rotate", x.dtype)(*map(ctypes.byref, ends), cos_sin.data_ptr(), own, back, B, T, H, C)
    return y


# ---- attention --------------------------------------------------------------------------------------


class FlashStruct(ctypes.Structure):
    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, HeadsStruct) for name in ("q", "k", "v", "y")),
        ("log_sums", ctypes.c_void_p),
        *((name, HeadsStruct) for name in ("dq", "dk", "dv")),
        ("seen", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("seen_text", "seen_query")),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("causal", "B", "H", "G", "Q", "K", "C")),
    ]


class FlashFunction(torch.autograd.Function):
    """softmax(scale q k^T) v over the keys that a query sees; zeros where it sees none. The reference is
    ``attention.explicit``.

    FlashAttention (Dao et al., arXiv:2205.14135): the backward pass computes the weights again. ``seen`` is the mask;
    None for all keys, or with ``causal`` for those up to the query's own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Float[Tensor, "B H Q C"],
        k: Float[Tensor, "B G K C"],
        v: Float[Tensor, "B G K C"],
        seen: Bool[Tensor, "#B 1 #Q K"] | None,
        causal: bool,
        scale: float,
    ) -> Float[Tensor, "B H Q C"]:
        y, log_sums = empty_by_token(q), q.new_empty(q.shape[:3], dtype=torch.float32)
        seen = None if seen is None else contiguous_channels(seen.expand(len(q), 1, q.shape[2], -1))
        ctx.causal, ctx.scale = causal, scale
        ctx.save_for_backward(q, k, v, seen, log_sums)
        kernel("flash", q.dtype)(ctypes.byref(_struct(q, k, v, y, seen, log_sums, causal, scale)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, seen, log_sums = ctx.saved_tensors
        upstream, gradients = contiguous_channels(upstream), [empty_by_token(t) for t in (q, k, v)]
        given = _struct(q, k, v, upstream, seen, log_sums, ctx.causal, ctx.scale)
        given.dq, given.dk, given.dv = map(HeadsStruct.of, gradients)
        kernel("flash_gradient", q.dtype)(ctypes.byref(given))
        return (*gradients, None, None, None)


def supports_attention(q: Float[Tensor, "B H Q C"], k: Float[Tensor, "B G K C"], v: Float[Tensor, "B G K C"]) -> bool:
    """Return whether gradients are needed and the kernel can compute them."""
    return torch.is_grad_enabled() and q.requires_grad and supports_heads(q, k, v)


def _struct(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, seen: Tensor | None, log_sums: Tensor, causal: bool, scale: float
) -> FlashStruct:
    (B, H, Q, C), (_, G, K, _) = q.shape, k.shape
    mask = (None, 0, 0) if seen is None else (seen.data_ptr(), seen.stride(0), seen.stride(2))
    heads, none = map(HeadsStruct.of, (q, k, v, y)), [HeadsStruct()] * 3
    return FlashStruct(*heads, log_sums.data_ptr(), *none, *mask, scale, causal, B, H, G, Q, K, C)

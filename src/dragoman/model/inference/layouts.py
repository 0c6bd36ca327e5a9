"""Weight layouts of linear layers for inference, each with its product.

R rows, K inputs, N outputs of one layer; P outputs of a panel.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from threading import RLock
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8, Int32
from torch import Tensor, nn

from dragoman.machine import shortest_times
from dragoman.native.library import library

Struct = TypeVar("Struct", bound=ctypes.Structure)


class PackedLinear(nn.Module):
    """Several linear layers that read the same input, packed as one."""

    weight: Tensor
    """Weights of all layers, (K, N)."""
    bias: Float[Tensor, " N"] | None

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__()
        self.in_features, self.out_features = parts[0].in_features, sum(part.out_features for part in parts)
        self.register_buffer("bias", _biases(parts))


class TransposedLinear(PackedLinear):
    """x W + b in the precision of the model."""

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__(parts)
        self.register_buffer("weight", _weights(parts).t().contiguous())

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        y = x @ self.weight
        return y if self.bias is None else y.add_(self.bias)


INT8_MAX = 127.0
"""Largest code of 8 bits, on either side of 0."""
TINY = 1e-20
"""Smallest magnitude, so that rows of zeros do not divide by zero."""


class Int8Linear(PackedLinear):
    """x W + b in 8-bit integers: weights scaled by output, inputs quantized at run time and scaled by row.

    Integer sums are exact, so a row's result does not depend on the other rows, to the bit.
    """

    scale: Float[Tensor, " N"]

    def __init__(self, parts: Sequence[nn.Linear]):
        super().__init__(parts)
        weight = _weights(parts).float()
        scale = weight.abs().amax(dim=1).clamp_min(TINY) / INT8_MAX
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8).t())
        self.register_buffer("scale", scale / INT8_MAX)

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        rows = x.flatten(0, -2)
        size = rows.abs().amax(dim=1, keepdim=True).clamp_min_(TINY)
        codes = (rows * (INT8_MAX / size)).round_().to(torch.int8)
        product = int8_product(codes, self.weight)
        y = product.float().mul_(size).mul_(self.scale)
        return (y if self.bias is None else y.add_(self.bias)).view(*x.shape[:-1], -1)


def _weights(parts: Sequence[nn.Linear]) -> Tensor:
    """Return the concatenated weights; those of a single layer are no copy."""
    weights = [part.weight.detach() for part in parts]
    return weights[0] if len(weights) == 1 else torch.cat(weights)


MAX_EXACT_INPUTS = 1024
"""Inputs whose sums of products stay below 2^24, up to which float32 holds every integer: 127 * 127 * 1,024."""
OUTPUTS_AT_ONCE = 256
"""Outputs whose weights are converted to float32 at the same time: they stay in the cache."""


def int8_product(a: Int8[Tensor, "R K"], b: Int8[Tensor, "K N"]) -> Int32[Tensor, "R N"]:
    """Return a b in 32 bits: by torch's product of 8-bit integers, or in float32, as exactly, where that is faster."""
    return (_by_float32 if len(a) >= _rows_for_float32() else _by_int8)(a, b)


def _by_int8(a: Int8[Tensor, "R K"], b: Int8[Tensor, "K N"]) -> Int32[Tensor, "R N"]:
    if a.shape[1] == 1:
        return a.int() * b.int()  # torch's product on CPUs would hold arbitrary numbers
    return torch._int_mm(a, b)  # pyright: ignore[reportPrivateImportUsage]


def _by_float32(a: Int8[Tensor, "R K"], b: Int8[Tensor, "K N"]) -> Int32[Tensor, "R N"]:
    y = a.new_zeros(len(a), b.shape[1], dtype=torch.int32)
    with torch.autocast(a.device.type, enabled=False):
        for x, weights in zip(a.float().split(MAX_EXACT_INPUTS, dim=1), b.split(MAX_EXACT_INPUTS), strict=True):
            for to, w in zip(y.split(OUTPUTS_AT_ONCE, dim=1), weights.split(OUTPUTS_AT_ONCE, dim=1), strict=True):
                to += (x @ w.float()).int()
    return y


@cache
def _rows_for_float32() -> int:
    """Return the number of rows from which float32 is faster, measured in milliseconds.

    On CPUs without instructions for 8-bit integers torch's product of them is up to thirty times slower than float32.
    """
    b = torch.ones(256, 256, dtype=torch.int8)
    for rows in (1, 4, 16):
        seconds = shortest_times(
            {"int8": partial(_by_int8, b[:rows], b), "float32": partial(_by_float32, b[:rows], b)}, 4
        )
        if seconds["float32"] < seconds["int8"]:
            return rows
    return sys.maxsize


def _biases(parts: Sequence[nn.Linear]) -> Tensor | None:
    """Return the concatenated biases, 0 for layers without one; None where no layer has one."""
    if all(part.bias is None for part in parts):
        return None
    return torch.cat(
        [part.weight.new_zeros(part.out_features) if part.bias is None else part.bias.detach() for part in parts]
    )


# ---- panels, for kernels of our own -----------------------------------------------------------------

NumberFormat = Literal["float32", "bfloat16", "int8"]
"""Number format of weights, and of inputs in products. Sums are float32, or exact for int8."""
_GROUP_SIZE: dict[NumberFormat, int] = {"float32": 1, "bfloat16": 2, "int8": 4}
"""Number of inputs whose weights for one output are adjacent."""


class LinearStruct(ctypes.Structure):
    """``Linear`` of native/products.h."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "excess", "bias")),
        *((name, ctypes.c_int64) for name in ("kind", "K", "N")),
    ]


class Panels(PackedLinear):
    """x W + b by the kernels in ``native/``: a row's result does not depend on the other rows, to the bit."""

    number_format: NumberFormat
    scale: Tensor
    excess: Tensor

    def __init__(self, parts: Sequence[nn.Linear], number_format: NumberFormat = "float32"):
        super().__init__(parts)
        self.number_format, P, group = number_format, library().panel, _GROUP_SIZE[number_format]
        weight = _weights(parts).float()
        columns, rows = -self.in_features % group, -self.out_features % P
        if columns or rows:
            weight = F.pad(weight, (0, columns, 0, rows))
        self.bias = None if self.bias is None else self.bias.float()
        if number_format == "int8":
            scale = weight.abs().amax(dim=1).clamp_min(TINY) / INT8_MAX
            weight = (weight / scale[:, None]).round().to(torch.int8)
            self.register_buffer("scale", scale / INT8_MAX)
            self.register_buffer("excess", 128 * weight.sum(dim=1, dtype=torch.int32))
        panels = weight.view(-1, P, weight.shape[1] // group, group)  # (N / P, P, K / group, group)
        panels = panels.transpose(1, 2)
        stored = torch.bfloat16 if number_format == "bfloat16" else weight.dtype
        self.register_buffer("weight", panels.to(stored, memory_format=torch.contiguous_format, copy=True))

    def forward(self, x: Float[Tensor, "*R K"]) -> Float[Tensor, "*R N"]:
        y = x.new_empty(*x.shape[:-1], self.out_features, dtype=torch.float32)
        rows = x.detach().float().contiguous()
        rows_count = rows.numel() // self.in_features
        library().linear(ctypes.addressof(self.struct), rows.data_ptr(), rows_count, y.data_ptr())
        return y

    @property
    def struct(self) -> LinearStruct:
        """Addresses for the kernels, valid while this layer exists and is not moved."""
        return built_once(self, "struct", self.build_struct)

    def build_struct(self) -> LinearStruct:
        exact = self.number_format == "int8"
        return LinearStruct(
            weight=self.weight.data_ptr(),
            scale=self.scale.data_ptr() if exact else None,
            excess=self.excess.data_ptr() if exact else None,
            bias=None if self.bias is None else self.bias.data_ptr(),
            kind=list(_GROUP_SIZE).index(self.number_format),
            K=self.in_features,
            N=self.out_features,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "struct"}  # a copy lies elsewhere

    def _apply(self, fn: Callable, recurse: bool = True) -> "Panels":
        raise TypeError("a layer in panels cannot be moved or converted: move the model before packing it")


_BUILDING = RLock()  # one struct may build others


def built_once(layer: nn.Module, name: str, build: Callable[[], Struct]) -> Struct:
    """Return what ``build`` returned for this layer when it was first needed.

    Threads may share the layer, and what a struct points to is kept for one struct alone: the first thread builds it,
    and the others wait.
    """
    if name not in layer.__dict__:
        with _BUILDING:
            if name not in layer.__dict__:
                layer.__dict__[name] = build()
    return layer.__dict__[name]


def panels(number_format: NumberFormat) -> Callable[[Sequence[nn.Linear]], Panels]:
    """Return the layout in panels of that number format."""
    return partial(Panels, number_format=number_format)

"""Storage formats of cached keys and values: unchanged, in fewer bits, or as small integers with a scale.

A storage converts vectors to parts, tensors with the same leading dimensions, and back; ``layout.py`` places the parts
in memory. Each scale belongs to one token and one head, so that tokens are quantized independently. Scales are
bfloat16, and codes are computed from the rounded scale: the bounds include its rounding error.

Error of the values read, for a vector of channels x with the largest magnitude m (arithmetic in float32 or finer):

| storage   | at most                          | why                                                              |
|-----------|----------------------------------|------------------------------------------------------------------|
| bfloat16  | 2^-8 of each x                   | 8 significant bits: half a unit in the last place                |
| float8    | 2^-4 of each x, or m 2^-18       | e4m3: 4 significant bits; m becomes 448, and half of the         |
|           |                                  | smallest step there is 2^-10                                     |
| int8      | m / 254 (1 + 2^-8)               | half a step; the step is m / 127, its scale rounded to 2^-8      |
| int4      | m / 14 (1 + 2^-8)                | the same with m / 7                                              |

B batch, G key/value heads, T length, C channels of one head.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dragoman.config import OneOf, config

Parts = tuple[Tensor, ...]
"""Stored form of vectors: tensors of shape (..., numbers of this part)."""

_SMALLEST = 1e-30
"""Smallest scale, so that vectors of zeros do not divide by zero."""


class Storage(ABC):
    """Base of the storage formats."""

    examples: tuple[str, ...] | None = None
    """Caches that ``dragoman verify`` tests; None for the name alone."""

    @abstractmethod
    def write(self, x: Float[Tensor, "... C"]) -> Parts: ...

    @abstractmethod
    def read(self, parts: Parts, channels: int, dtype: torch.dtype) -> Float[Tensor, "... C"]: ...

    def is_exact(self, dtype: torch.dtype) -> bool:
        """Return whether every number of that type is read as it was written."""
        return False


@config
class Unchanged(Storage):
    """Store in the model's own data type."""

    examples = ()  # as every layout without a storage beside it has it

    def write(self, x: Tensor) -> Parts:
        return (x,)

    def read(self, parts: Parts, channels: int, dtype: torch.dtype) -> Tensor:
        return parts[0]

    def is_exact(self, dtype: torch.dtype) -> bool:
        return True


class _Cast(Storage):
    dtype: torch.dtype

    def write(self, x: Tensor) -> Parts:
        return (x.to(self.dtype),)

    def read(self, parts: Parts, channels: int, dtype: torch.dtype) -> Tensor:
        return parts[0].to(dtype)

    def is_exact(self, dtype: torch.dtype) -> bool:
        return torch.promote_types(dtype, self.dtype) == self.dtype


@config
class Float32(_Cast):
    """Store as float32."""

    dtype = torch.float32
    examples = ("growing+float32",)


@config
class Bfloat16(_Cast):
    """Store as bfloat16."""

    dtype = torch.bfloat16


class _Scaled(Storage):
    largest: float
    """Code of a vector's largest magnitude."""

    def write(self, x: Tensor) -> Parts:
        scale = (x.abs().amax(dim=-1, keepdim=True) / self.largest).clamp(min=_SMALLEST).bfloat16()
        return self.code(x / scale.to(torch.promote_types(x.dtype, torch.float32))), scale

    def read(self, parts: Parts, channels: int, dtype: torch.dtype) -> Tensor:
        codes, scale = parts
        return self.decode(codes, channels).to(dtype) * scale.to(dtype)

    @abstractmethod
    def code(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def decode(self, codes: Tensor, channels: int) -> Tensor: ...


@config
class Float8(_Scaled):
    """Store as float8, e4m3 (Micikevicius et al., arXiv:2209.05433), with a scale."""

    largest = 448.0

    def code(self, x: Tensor) -> Tensor:
        return x.float().to(torch.float8_e4m3fn).view(torch.uint8)  # bytes, which every kernel can move

    def decode(self, codes: Tensor, channels: int) -> Tensor:
        return codes.view(torch.float8_e4m3fn)


@config
class Int8(_Scaled):
    """Store as 8-bit integers with a scale."""

    largest = 127.0

    def code(self, x: Tensor) -> Tensor:
        return x.round().to(torch.int8)

    def decode(self, codes: Tensor, channels: int) -> Tensor:
        return codes


@config
class Int4(_Scaled):
    """Store as 4-bit integers with a scale, two to a byte: first half of the channels low, second half high."""

    largest = 7.0

    def code(self, x: Tensor) -> Tensor:
        whole = (x.round() + 8).to(torch.uint8)
        low, high = F.pad(whole, (0, whole.shape[-1] % 2)).chunk(2, dim=-1)
        return low | high << 4

    def decode(self, codes: Tensor, channels: int) -> Tensor:
        return torch.cat([codes & 15, codes >> 4], dim=-1)[..., :channels].to(torch.int8) - 8


AnyStorage = Annotated[Unchanged | Float32 | Bfloat16 | Float8 | Int8 | Int4, OneOf()]

# ---- keys and values ------------------------------------------------------------------------------


class KV(NamedTuple):
    """Keys and values."""

    k: Float[Tensor, "B G T C"]
    v: Float[Tensor, "B G T C"]


@dataclass(frozen=True)
class Stored:
    """Keys and values in stored form, of an encoded source or of a layer's tokens."""

    k: Parts
    v: Parts
    storage: Storage
    channels: int
    dtype: torch.dtype

    @classmethod
    def of(cls, kv: KV, storage: Storage) -> "Stored":
        return cls(storage.write(kv.k), storage.write(kv.v), storage, kv.k.shape[-1], kv.k.dtype)

    def read(self) -> KV:
        return KV(*(self.storage.read(parts, self.channels, self.dtype) for parts in (self.k, self.v)))

    def select_rows(self, chosen: Tensor) -> "Stored":
        k, v = (tuple(part.index_select(0, chosen) for part in parts) for parts in (self.k, self.v))
        return replace(self, k=k, v=v)

    def stack_rows(self, below: "Stored") -> "Stored":
        """Return the rows of both, these first; the shorter side is padded with zeros at the end."""
        length = max(self.k[0].shape[2], below.k[0].shape[2])

        def joined(a: Tensor, b: Tensor) -> Tensor:
            return torch.cat([F.pad(t, (0, 0, 0, length - t.shape[2])) for t in (a, b)])

        k, v = (tuple(map(joined, *both)) for both in ((self.k, below.k), (self.v, below.v)))
        return replace(self, k=k, v=v)

    def truncated(self, length: int) -> "Stored":
        k, v = (tuple(part[:, :, :length] for part in parts) for parts in (self.k, self.v))
        return replace(self, k=k, v=v)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (*self.k, *self.v))

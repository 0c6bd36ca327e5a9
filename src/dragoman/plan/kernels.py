"""Kernels in C while a step is counted: they are recorded, not run.

A kernel's arguments are the tensors whose addresses were asked for since the kernel before it, so that bytes are
counted for kernels that this file does not name. Only products and recurrences have a formula here.

B batch, H heads, Q/K query and key lengths, C channels of one head; R rows, N outputs, T tokens, E channels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from dragoman.model.ops.native_scan import ScanStruct
from dragoman.native.library import FLOAT32, Library


def attention_flops(*, forward: bool, B: int, H: int, Q: int, K: int, C: int, values: int | None = None) -> int:
    """Return the FLOPs of the products of attention without stored weights. The backward pass computes the scores
    again: five products instead of two. Masked positions count, as in PyTorch's own counter."""
    scores, mixed = 2 * B * H * Q * K * C, 2 * B * H * Q * K * (C if values is None else values)
    return scores + mixed if forward else 3 * scores + 2 * mixed


def _flash(struct: Any, forward: bool) -> int:
    return attention_flops(forward=forward, B=struct.B, H=struct.H, Q=struct.Q, K=struct.K, C=struct.C)


def _scan(address: int, each: int) -> int:
    scan = ScanStruct.from_address(address)
    return each * scan.B * scan.T * scan.E * scan.N


FLOPS: dict[str, Callable[..., int]] = {
    "add_gradient": lambda upstream, x, R, N, K, *_: 2 * R * N * K,
    **{f"flash{suffix}": lambda struct: _flash(struct._obj, True) for suffix in ("", FLOAT32)},
    **{f"flash_gradient{suffix}": lambda struct: _flash(struct._obj, False) for suffix in ("", FLOAT32)},
    # as selective_scan.py counts: a recurrence is 2 and each sum over states or channels 2; backward, the recurrence
    # runs again, then in the other direction, and five sums follow
    "selective_scan": lambda scan: _scan(scan, 4),
    "selective_scan_gradient": lambda scan, _: _scan(scan, 14),
}
"""FLOPs of a call, from its arguments; kernels that are not named multiply no matrices."""


_FIRST = 1 << 44
"""Smallest made-up address: above any size that a kernel is told."""


class KernelCall(NamedTuple):
    """One recorded call."""

    name: str
    args: tuple[Any, ...]
    """Arguments as given, with made-up addresses."""
    tensors: dict[int, Tensor]
    """Tensors by their made-up addresses."""
    flops: int


class RecordedLibrary(Library):
    """Library whose functions report the call and compute nothing; what else it has is the real one's."""

    def __init__(self, real: Library, report: Callable[[KernelCall], None]):
        self._real, self._report = real, report
        self._asked: list[Tensor] = []

    @property
    def address(self) -> Callable[[Tensor], int]:
        """Function that returns a made-up address of a tensor, which becomes an argument of the next kernel."""

        def address_of(tensor: Tensor) -> int:
            self._asked.append(tensor)
            return _FIRST + 64 * len(self._asked)

        return address_of

    def use_torch_threads(self) -> None:
        """Do nothing: no thread is used."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        def record(*args: Any) -> None:
            tensors, self._asked = {_FIRST + 64 * (i + 1): t for i, t in enumerate(self._asked)}, []
            self._report(KernelCall(name, args, tensors, FLOPS[name](*args) if name in FLOPS else 0))

        return record

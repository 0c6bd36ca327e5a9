"""Work and memory of a step, counted by running it on shapes: no weights, no values, no formula for any model.

Operations come from PyTorch's dispatcher, below autograd, so every model that can be trained is counted, and what the
backward pass saves and releases is what a real one does. On a CPU in bfloat16 the kernels in C are recorded in their
place. FLOPs are those of products and recurrences; a multiplication and an addition are two.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dragoman.model import attention, chunked_loss
from dragoman.model.ops.observed import OBSERVERS
from dragoman.model.parts import PARTS, part_of
from dragoman.native.library import Unavailable, library, standing_in
from dragoman.plan import shapes
from dragoman.plan.kernels import KernelCall, RecordedLibrary, attention_flops
from dragoman.plan.live import LiveBytes, storages
from dragoman.plan.operation import Operation
from dragoman.plan.whereabouts import Whereabouts

CPU = torch.device("cpu")
aten = torch.ops.aten

# ---- result -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """Work and memory of a step."""

    operations: list[Operation]
    """Operations, equal ones together, in the order in which they first ran."""
    peak_bytes: int
    """Most bytes that the step held at once, of those it allocated itself: neither weights nor batch."""
    peak: dict[str, int]
    """Those bytes by category: ``activations`` that the backward pass needs, ``logits`` (of the output layer and the
    loss), ``gradients`` of parameters, and ``workspace`` that is released at once."""
    recomputed: int
    """FLOPs of the backward pass that compute activations again (activation checkpointing)."""
    memory: LiveBytes = field(repr=False)
    """Every allocation, for ``heap.py``."""

    def flops(self, backward: bool | None = None) -> int:
        """Return the FLOPs of the backward pass, of the forward pass, or (None) of both."""
        return sum(op.flops * op.calls for op in self.operations if backward in (None, op.backward))

    @property
    def learned_flops(self) -> int:
        """FLOPs of both passes without those that compute activations again."""
        return self.flops() - self.recomputed

    def by_part(self) -> dict[str, int]:
        """Return the FLOPs of each part of the model."""
        found = dict.fromkeys(PARTS, 0)
        for op in self.operations:
            found[op.part] += op.flops * op.calls
        return found


# ---- counting ---------------------------------------------------------------------------------------


@contextmanager
def on_shapes(device: torch.device) -> Iterator[None]:
    """Make tensors have shapes alone inside the block.

    A GPU need not be here: its tensors are counted as tensors of a CPU without our kernels, with fused attention
    wherever PyTorch would have it, and with a loss in chunks of a GPU's size.
    """
    with (
        torch.random.fork_rng(devices=[]),
        shapes.shape_mode(),
        nullcontext() if device.type == "cpu" else _as_on_gpu(),
    ):
        yield


@contextmanager
def _as_on_gpu() -> Iterator[None]:
    with standing_in(None), patch.object(chunked_loss, "runs_on_cpu", lambda weight: False):
        yield


Observer = Callable[[Any, Any, Any, bool, int], None]
"""Is told of every operation: (operation, arguments, keyword arguments, True in the backward pass, number of calls).
For a kernel in C the first three are ``native.NAME``, its arguments, and its tensors by the addresses in them."""


def count(
    step: Callable[[], object],
    model: nn.Module,
    *,
    fused_attention: bool = False,
    observe: Observer | None = None,
) -> Counted:
    """Run ``step`` on shapes and return its work and memory. Call inside ``on_shapes``, with ``model`` and its inputs
    as ``shapes`` makes them.

    Args:
        step: runs the forward pass and, for training, the backward pass.
        model: the model whose parts the work belongs to.
        fused_attention: run PyTorch's attention in one kernel that stores no weights, as on a GPU.
        observe: is told of every operation.
    """
    matrices = storages([p for p in model.parameters() if p.dim() >= 2])
    work = _Work(Whereabouts(model), matrices, observe)
    with ExitStack() as stack:
        try:
            recorded = RecordedLibrary(library(), work.record_kernel)
        except Unavailable:
            stack.enter_context(standing_in(None))
        else:
            stack.enter_context(standing_in(recorded))
            stack.enter_context(_addresses(recorded))
        if fused_attention:
            stack.enter_context(_fused_attention())
        stack.enter_context(work.place.followed())
        OBSERVERS.append(work)
        stack.callback(OBSERVERS.remove, work)
        stack.enter_context(work)
        result = step()
    work.live.mark_gradients([p.grad for p in model.parameters() if p.grad is not None])
    del result
    return work.counted()


class _Work(TorchDispatchMode):
    """Records every operation."""

    def __init__(self, place: Whereabouts, matrices: set[int], observe: Observer | None):
        super().__init__()
        self.place, self.matrices, self.observe, self.live = place, matrices, observe, LiveBytes()
        self.early, self.times = 0, 1
        self.calls: dict[Operation, int] = {}
        self.recomputed = 0
        self.going_back = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if self.going_back == self.place.forward:
            self.going_back = not self.going_back
            if self.going_back:
                self.live.begin_backward()
        given = list(shapes.tensors_in((args, kwargs)))
        found = shapes.call(func, args, kwargs)
        made = list(shapes.tensors_in(found))
        if self.observe:
            self.observe(func, args, kwargs, self.backward and not self.place.recomputing, self.times)
        self._record(func, args, kwargs, given, found, made)
        return found

    def _record(self, func: Any, args: Any, kwargs: Any, given: list[Tensor], found: Any, made: list[Tensor]) -> None:
        known, path = storages(given), self.place.path
        flops = flops_of(func, args, kwargs, found)
        part = part_of(path, multiplies=bool(flops))
        for tensor in made:
            of = part_of(path, multiplies=True) if path == "" else part
            self.live.add(tensor, known, of, self.place.forward, self.place.recomputing)
        if func.is_view or func.overloadpacket in _FREE or not (given or made):
            return
        self._add(str(func.overloadpacket), part, given, made, flops)

    @property
    def backward(self) -> bool:
        """True in the backward pass, and where the forward pass computes a gradient."""
        return bool(self.early) or not self.place.forward

    def _add(self, name: str, part: str, given: list[Tensor], made: list[Tensor], flops: int) -> None:
        moved = sum(_nbytes(t) for t in given) + sum(_nbytes(t) for t in made)
        weights = sum(_nbytes(t) for t in given if not self.matrices.isdisjoint(storages([t])))
        dtype = next((t.dtype for t in (*made, *given)), torch.float32)
        shape = tuple(tuple(t.shape) for t in given)
        operation = Operation(name, part, self.backward, shape, dtype, flops, moved, weight_bytes=weights)
        self.calls[operation] = self.calls.get(operation, 0) + self.times
        self.recomputed += self.times * flops if self.place.recomputing else 0

    def record_kernel(self, call: KernelCall) -> None:
        """Record a call of a kernel in C."""
        if self.observe:
            backward = self.backward and not self.place.recomputing
            self.observe(f"native.{call.name}", call.args, call.tensors, backward, self.times)
        part = part_of(self.place.path, multiplies=bool(call.flops))
        self._add(f"dragoman.{call.name}", part, list(call.tensors.values()), [], call.flops)

    def recurrence(self, states: Tensor) -> None:
        """Record the recurrence that made ``states``; its operations are recorded by themselves."""
        flops = 2 * states.numel()
        self._add("dragoman.recurrence", part_of(self.place.path, multiplies=True), [], [], flops)

    def counted(self) -> Counted:
        live = self.live
        operations = [replace(operation, calls=calls) for operation, calls in self.calls.items()]
        return Counted(operations, live.peak, live.at_peak(), self.recomputed, live)


def _nbytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's elements; what is broadcast is read once."""
    shape = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 1)
    return math.prod(shape) * tensor.element_size()


_FREE = {
    *(aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided),
    *(aten._unsafe_view, aten.detach, aten.lift_fresh, aten._reshape_alias),
}
"""Operations that move nothing."""

# ---- FLOPs ------------------------------------------------------------------------------------------


def flops_of(func: Any, args: Any, kwargs: Any, found: Any) -> int:
    """Return the FLOPs of an operation; 0 where it is no product."""
    packet = func.overloadpacket
    if packet in _FLOPS:
        return _FLOPS[packet](*args, **kwargs)
    known = flop_registry.get(packet)
    return 0 if known is None else int(known(*args, **kwargs, out_val=found))


def _attention(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> int:
    return _attention_sizes(q, k, v, forward=True)


def _attention_gradient(upstream: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> int:
    return _attention_sizes(q, k, v, forward=False)


def _attention_sizes(q: Tensor, k: Tensor, v: Tensor, *, forward: bool) -> int:
    (B, H, Q, C), K = q.shape, k.shape[2]
    return attention_flops(forward=forward, B=B, H=H, Q=Q, K=K, C=C, values=v.shape[3])


_FLOPS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient,
    aten.addmm_: lambda c, a, b, **_: 2 * a.numel() * b.shape[1],
    aten.mv: lambda a, b, **_: 2 * a.numel(),
    aten.addmv: lambda c, a, b, **_: 2 * a.numel(),
    aten.dot: lambda a, b: 2 * a.numel(),
    torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_: 2 * x.numel() * weight.shape[0],
}
"""FLOPs of products that PyTorch's own counter leaves out."""

# ---- what a step must find while it runs on shapes --------------------------------------------------


@contextmanager
def _addresses(recorded: RecordedLibrary) -> Iterator[None]:
    """Give tensors made-up addresses, by which the recorded kernels know their arguments."""
    with patch.object(Tensor, "data_ptr", recorded.address):
        yield


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Run attention as one operation of PyTorch's that stores no weights, whatever its mask and dropout, and
    for texts of any length: what is faster for short ones is so on CPUs alone."""
    with (
        patch.object(F, "scaled_dot_product_attention", _fused),
        patch.object(attention, "explicit_is_faster", lambda *given: False),
    ):
        yield


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=q.dtype, device=q.device)
    attend = aten._scaled_dot_product_flash_attention_for_cpu
    return attend(q, k, v, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]

"""Chunked computation of the losses in ``loss.py``, with their gradients.

N tokens, R rows of each (two where two passes are compared), D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.linear import PRODUCTS, Product, plain
from dragoman.model.ops import elementwise as kernels
from dragoman.model.ops import products
from dragoman.model.ops.observed import alike, early_gradient

CHUNK_BYTES = 8 << 20
"""Size of a chunk's logits in float32 on a CPU: fits a core's cache (measured in benchmarks/loss_chunks.py)."""
KERNEL_CHUNK = 8 << 20
"""Number of a chunk's logits where a kernel passes over them once: 16 MB in bfloat16 and 32 MB in float32. Larger
products are faster."""
GPU_CHUNK_BYTES = 256 << 20
"""Size of a chunk's logits in float32 on a GPU, which gains nothing from a core's cache, and needs large products.

A choice by arithmetic, not measured: 65,000 tokens over a vocabulary of 37,000 take 36 chunks instead of 1,150, each of
which adds a whole gradient of the weight; a chunk with its probabilities takes up to a gigabyte.
"""


def as_float32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is if it is finer."""
    return x.to(_exact(x))


def _exact(x: Tensor) -> torch.dtype:
    """Return the data type for sums of numbers like those of ``x``: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


# ---- the loss of a chunk of logits ----------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropyLoss:
    """Cross-entropy with label smoothing."""

    smoothing: float
    rows: ClassVar[int] = 1
    """Number of rows for each token, which must be in one chunk."""

    def __call__(
        self, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], learning: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
        """Return the sum over rows and, when ``learning``, its gradient by the logits, which may overwrite them."""
        if kernels.supports_loss(logits):
            return kernels.cross_entropy(logits, targets, self.smoothing, learning), logits if learning else None
        return self.keeping(logits, targets, learning)

    def keeping(
        self, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], learning: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
        """Return the same, and leave ``logits`` as they are."""
        logits = as_float32(logits)
        average = logits.mean(dim=1) if self.smoothing else 0.0
        picked, largest = logits.gather(1, targets).squeeze(1), logits.amax(dim=1)
        p = logits.softmax(dim=1)
        log_norm = largest - p.amax(dim=1).log_()  # from the likeliest entry, whose p is at least 1 / V
        summed = (log_norm - (1 - self.smoothing) * picked - self.smoothing * average).sum()
        if not learning:
            return summed, None
        gradient = p  # softmax - q, overwriting the probabilities
        if self.smoothing:
            gradient -= self.smoothing / logits.shape[1]
        return summed, gradient.scatter_add_(1, targets, gradient.new_full((), self.smoothing - 1).expand_as(targets))


@dataclass(frozen=True)
class RDropLoss:
    """R-Drop loss of two passes; the two rows of a token are adjacent."""

    smoothing: float
    alpha: float
    rows: ClassVar[int] = 2

    def __call__(
        self, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], learning: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
        logits = as_float32(logits)
        summed, gradient = CrossEntropyLoss(self.smoothing).keeping(logits, targets, learning)
        log_p, log_q = F.log_softmax(logits, dim=1).unflatten(0, (-1, 2)).unbind(1)
        difference, p, q = log_p - log_q, log_p.exp(), log_q.exp()
        p_to_q, q_to_p = (p * difference).sum(dim=1, keepdim=True), -(q * difference).sum(dim=1, keepdim=True)
        if gradient is not None:
            by_p, by_q = gradient.mul_(0.5).unflatten(0, (-1, 2)).unbind(1)
            by_p.add_(p * (difference - p_to_q) + p - q, alpha=self.alpha / 4)
            by_q.add_(q * (-difference - q_to_p) + q - p, alpha=self.alpha / 4)
        return summed / 2 + self.alpha / 4 * (p_to_q + q_to_p).sum(), gradient

    keeping = __call__


# ---- chunk by chunk -------------------------------------------------------------------------------


def in_chunks(
    hidden: Float[Tensor, "N R D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    criterion: CrossEntropyLoss | RDropLoss,
    ignore: int,
    cap: float | None,
    product: Product,
) -> Float[Tensor, ""]:
    """Return the sum of ``criterion`` over tokens whose target is not ``ignore``."""
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    hidden = hidden.to(dtype)
    if torch.compiler.is_compiling():
        return _as_one_operation(hidden, weight, bias, targets, criterion, ignore, cap, product)
    real = (targets != ignore).nonzero().squeeze(1)
    if len(real) < len(targets):
        hidden, targets = hidden.index_select(0, real), targets.index_select(0, real)
    with torch.autocast(hidden.device.type, enabled=False):
        return _InChunks.apply(hidden, weight, bias, targets, criterion, cap, product, torch.is_grad_enabled())


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        criterion: CrossEntropyLoss | RDropLoss,
        cap: float | None,
        product: Product,
        learning: bool,
    ) -> Tensor:
        grads = _Gradients((hidden, weight, bias), ctx.needs_input_grad, product) if learning else None
        loss = _sum(hidden, weight, bias, targets, criterion, cap, product, grads)
        if grads is not None:
            ctx.save_for_backward(grads.hidden, grads.weight, grads.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grads = (None if t is None else (t * upstream).to(t.dtype) for t in ctx.saved_tensors)
        return (*grads, None, None, None, None, None)


def _sum(
    hidden: Float[Tensor, "N R D"],
    weight: Tensor,
    bias: Tensor | None,
    targets: Int[Tensor, " N"],
    criterion: CrossEntropyLoss | RDropLoss,
    cap: float | None,
    product: Product,
    grads: "_Gradients | None",
) -> Tensor:
    """Return the loss, and add its gradients to ``grads`` unless that is None."""
    weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
    loss, R = as_float32(hidden.new_zeros(())), hidden.shape[1]
    tokens = _chunk(weight, R, cap)
    for start in alike(range(0, len(hidden), tokens), len(hidden) // tokens):
        h, y = hidden[start : start + tokens].flatten(0, 1), targets[start : start + tokens]
        logits, compute = product(h, weight, bias), criterion
        if cap is not None:  # the derivative of tanh needs the logits
            logits, compute = as_float32(logits).div_(cap).tanh_().mul_(cap), criterion.keeping
        summed, gradient = compute(logits, y.repeat_interleave(R)[:, None], grads is not None)
        loss += summed
        if grads is not None and gradient is not None:
            if cap is not None:
                gradient.mul_(1 - (logits / cap).square_())  # the derivative of tanh
            with early_gradient():
                grads.add(start, h, weight, gradient.to(weight.dtype))
    return loss


def _chunk(weight: Float[Tensor, "V D"], R: int, cap: float | None) -> int:
    """Return the number of tokens in a chunk."""
    if not runs_on_cpu(weight):
        size = GPU_CHUNK_BYTES // 4
    elif R == 1 and cap is None and kernels.supports_loss(weight):
        size = KERNEL_CHUNK
    else:
        size = CHUNK_BYTES // 4
    return max(1, size // (len(weight) * R))


def runs_on_cpu(weight: Tensor) -> bool:
    """Return whether a CPU multiplies by ``weight``; a step that is counted for a GPU replaces this function."""
    return weight.device.type == "cpu"


class _Gradients:
    """Gradients by hidden vectors, weight and bias, accumulated over chunks; None where not needed."""

    def __init__(self, given: tuple[Tensor, Tensor, Tensor | None], wanted: Sequence[bool], product: Product):
        (hidden, weight, bias), self.product = given, product
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=_exact(weight)) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=_exact(bias)) if bias is not None and wanted[2] else None

    def add(self, start: int, h: Tensor, weight: Float[Tensor, "V D"], gradient: Float[Tensor, "N V"]) -> None:
        if self.hidden is not None:
            R = self.hidden.shape[1]
            by_hidden = self.product(gradient, weight.t(), None)
            self.hidden[start : start + len(h) // R] = by_hidden.unflatten(0, (-1, R))
        if self.weight is not None and products.supports_gradient(self.weight, gradient, h):
            products.add_gradient(gradient, h, self.weight, self.bias)
            return
        if self.weight is not None and self._adds(weight):
            self.weight.addmm_(gradient.t(), h)
        elif self.weight is not None:
            kernels.accumulate(self.weight, self.product(gradient.t(), h.t(), None))
        if self.bias is not None:
            self.bias += gradient.sum(dim=0)

    def _adds(self, weight: Float[Tensor, "V D"]) -> bool:
        """Return whether the product by ``weight``'s gradient can add to the sum itself: a pass less for each chunk."""
        assert self.weight is not None
        return self.product is plain and runs_on_cpu(weight) and weight.dtype == self.weight.dtype


# ---- as one operation, for torch.compile ------------------------------------------------------------


def _as_one_operation(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    criterion: CrossEntropyLoss | RDropLoss,
    ignore: int,
    cap: float | None,
    product: Product,
) -> Tensor:
    """Compute the loss as one custom operation, since a compiler does not know the number of real tokens and chunks."""
    wanted = [t is not None and t.requires_grad and torch.is_grad_enabled() for t in (hidden, weight, bias)]
    alpha = criterion.alpha if isinstance(criterion, RDropLoss) else None
    number = [*PRODUCTS.values()].index(product)
    return _opaque(hidden, weight, bias, targets, criterion.smoothing, alpha, ignore, cap, number, wanted)[0]


@torch.library.custom_op("dragoman::loss_in_chunks", mutates_args=())
def _opaque(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    smoothing: float,
    alpha: float | None,
    ignore: int,
    cap: float | None,
    number: int,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss, and its gradients by hidden vectors, weight and bias: empty where they are not needed.

    ``number`` is the index of the multiplying library in ``PRODUCTS``.
    """
    criterion = CrossEntropyLoss(smoothing) if alpha is None else RDropLoss(smoothing, alpha)
    real = (targets != ignore).nonzero().squeeze(1)
    h, product = hidden.index_select(0, real), [*PRODUCTS.values()][number]
    grads = _Gradients((h, weight, bias), wanted, product) if any(wanted) else None
    with torch.autocast(hidden.device.type, enabled=False):
        loss = _sum(h, weight, bias, targets.index_select(0, real), criterion, cap, product, grads)
    empty = weight.new_empty(0)
    if grads is None:
        return loss, empty, empty.clone(), empty.clone()
    by_hidden = empty if grads.hidden is None else torch.zeros_like(hidden).index_copy_(0, real, grads.hidden)
    by_weight, by_bias = (empty.clone() if t is None else t for t in (grads.weight, grads.bias))
    return loss, by_hidden, by_weight, by_bias


@_opaque.register_fake
def _(hidden, weight, bias, targets, smoothing, alpha, ignore, cap, number, wanted):
    dtypes = (hidden.dtype, _exact(weight), _exact(weight))
    grads = (
        torch.empty_like(t, dtype=dtype) if want and t is not None else weight.new_empty(0)
        for t, dtype, want in zip((hidden, weight, bias), dtypes, wanted, strict=True)
    )
    return as_float32(hidden.new_empty(())), *grads


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.wanted, ctx.dtypes = inputs[9], [None if t is None else t.dtype for t in inputs[:3]]


def _derivative(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    grads = (
        (as_float32(t) * upstream).to(dtype) if want else None
        for t, dtype, want in zip(ctx.saved_tensors, ctx.dtypes, ctx.wanted, strict=True)
    )
    return (*grads, *[None] * 7)


_opaque.register_autograd(_derivative, setup_context=_remember)

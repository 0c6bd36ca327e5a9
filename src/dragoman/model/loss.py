"""Cross-entropy of a linear output layer without its logits: computed, differentiated and dropped chunk by chunk.

The logits of a batch, tokens x vocabulary, are the largest tensor of a small translation model: written to memory once
forward and read three times backward they cost more than the matrix products themselves. Here a chunk of them lives in
the cache, becomes its own gradient in place, and is gone.

N tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from dragoman.model.kernels import learning as kernels
from dragoman.model.linear import Product, plain

CHUNK_BYTES = 8 << 20
"""Size of a chunk's logits in float32: what a core's cache takes (measured in benchmarks/loss_chunks.py)."""
KERNEL_CHUNK_BYTES = 16 << 20
"""The same in bfloat16 where a kernel goes over them once: the products of larger chunks are faster."""


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
    product: Product = plain,
) -> Float[Tensor, ""]:
    """Sum over tokens of -sum_v q(v) log softmax(hidden weight^T + bias)(v), skipping targets equal to ``ignore``.

    With ``cap`` the softmax is that of cap tanh(logits / cap). ``product`` multiplies, as in linear layers.

    q puts 1 - ``smoothing`` on the target and spreads ``smoothing`` evenly over the vocabulary
    (Szegedy et al., arXiv:1512.00567), as the 2017 recipe does with 0.1.
    """
    if hidden.is_meta:  # shapes alone do not tell which tokens are real: every token counts
        return plain_cross_entropy(hidden, weight, bias, targets, smoothing=smoothing, ignore=ignore, cap=cap)
    real = (targets != ignore).nonzero().squeeze(1)
    if len(real) < len(targets):
        hidden, targets = hidden.index_select(0, real), targets.index_select(0, real)
    return _in_chunks(hidden, weight, bias, targets, CrossEntropy(smoothing), cap, product)


def linear_r_drop(
    one: Float[Tensor, "N D"],
    two: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    alpha: float,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
    product: Product = plain,
) -> Float[Tensor, ""]:
    """Sum over tokens of what two passes with different dropout lose on average, and of their disagreement:

        (loss(one) + loss(two)) / 2 + alpha / 4 (KL(p_one || p_two) + KL(p_two || p_one))

    which is half of equation 4 of R-Drop (Liang et al., arXiv:2106.14448), so that it compares with the loss of one
    pass. All else as in ``linear_cross_entropy``.
    """
    if one.is_meta:
        both, twice = torch.cat([one, two]), targets.repeat(2)
        return plain_cross_entropy(both, weight, bias, twice, smoothing=smoothing, ignore=ignore, cap=cap) / 2
    real = (targets != ignore).nonzero().squeeze(1)
    pairs = torch.stack([one, two], dim=1).index_select(0, real).flatten(0, 1)
    targets = targets.index_select(0, real).repeat_interleave(2)
    return _in_chunks(pairs, weight, bias, targets, Agreement(smoothing, alpha), cap, product)


# ---- the slow twins -------------------------------------------------------------------------------


def plain_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
) -> Tensor:
    """The slow twin: the same sum from all logits at once."""
    logits = _exactly(F.linear(hidden, weight, bias))
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    return F.cross_entropy(logits, targets, ignore_index=ignore, reduction="sum", label_smoothing=smoothing)


def plain_r_drop(
    one: Tensor,
    two: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    alpha: float,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
) -> Tensor:
    """The slow twin of ``linear_r_drop``."""
    options: dict[str, Any] = {"smoothing": smoothing, "ignore": ignore, "cap": cap}
    losses = [plain_cross_entropy(h, weight, bias, targets, **options) for h in (one, two)]
    logits = [_exactly(F.linear(h[targets != ignore], weight, bias)) for h in (one, two)]
    if cap is not None:
        logits = [cap * torch.tanh(x / cap) for x in logits]
    return sum(losses) / 2 + alpha / 4 * disagreement(*logits)


def disagreement(one: Float[Tensor, "N V"], two: Float[Tensor, "N V"]) -> Float[Tensor, ""]:
    """Sum over rows of KL(p || q) + KL(q || p), where p and q are the softmax of these logits."""
    log_p, log_q = one.log_softmax(dim=-1), two.log_softmax(dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


def _exactly(x: Tensor) -> Tensor:
    return x.to(_exact(x))


def _exact(x: Tensor) -> torch.dtype:
    """What to sum numbers in that are like those of ``x``."""
    return torch.promote_types(x.dtype, torch.float32)


# ---- what a chunk of logits costs -----------------------------------------------------------------


@dataclass(frozen=True)
class CrossEntropy:
    smoothing: float
    rows: ClassVar[int] = 1
    """Rows that belong together, and so to one chunk."""

    def __call__(
        self, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], learning: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
        """The sum over rows and, when ``learning``, its gradient by the logits, in their place if they are bfloat16."""
        if logits.dtype == torch.bfloat16 and kernels.take(logits):
            return kernels.cross_entropy(logits, targets, self.smoothing, learning), logits if learning else None
        logits = _exactly(logits)
        average = logits.mean(dim=1) if self.smoothing else 0.0
        picked, largest = logits.gather(1, targets).squeeze(1), logits.amax(dim=1)
        p = logits.softmax(dim=1)
        log_norm = largest - p.amax(dim=1).log_()  # by the likeliest entry, whose p is at least 1 / V
        summed = (log_norm - (1 - self.smoothing) * picked - self.smoothing * average).sum()
        if not learning:
            return summed, None
        gradient = p  # softmax - q, in the place of the probabilities
        if self.smoothing:
            gradient -= self.smoothing / logits.shape[1]
        return summed, gradient.scatter_add_(1, targets, gradient.new_full((), self.smoothing - 1).expand_as(targets))


@dataclass(frozen=True)
class Agreement:
    """Of two passes, whose rows for a token follow one another."""

    smoothing: float
    alpha: float
    rows: ClassVar[int] = 2

    def __call__(
        self, logits: Float[Tensor, "N V"], targets: Int[Tensor, "N 1"], learning: bool
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "N V"] | None]:
        logits = _exactly(logits)
        summed, gradient = CrossEntropy(self.smoothing)(logits, targets, learning)
        log_p, log_q = F.log_softmax(logits, dim=1).unflatten(0, (-1, 2)).unbind(1)
        apart, p, q = log_p - log_q, log_p.exp(), log_q.exp()
        p_to_q, q_to_p = (p * apart).sum(dim=1, keepdim=True), -(q * apart).sum(dim=1, keepdim=True)
        if gradient is not None:
            by_p, by_q = gradient.mul_(0.5).unflatten(0, (-1, 2)).unbind(1)
            by_p.add_(p * (apart - p_to_q) + p - q, alpha=self.alpha / 4)
            by_q.add_(q * (-apart - q_to_p) + q - p, alpha=self.alpha / 4)
        return summed / 2 + self.alpha / 4 * (p_to_q + q_to_p).sum(), gradient


# ---- chunk by chunk -------------------------------------------------------------------------------


def _in_chunks(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    criterion: CrossEntropy | Agreement,
    cap: float | None,
    product: Product,
) -> Tensor:
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
    hidden = hidden.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return _InChunks.apply(hidden, weight, bias, targets, criterion, cap, product, torch.is_grad_enabled())


def _chunk(weight: Float[Tensor, "V D"], criterion: CrossEntropy | Agreement, cap: float | None) -> int:
    """Rows of a chunk."""
    by_kernel = weight.dtype == torch.bfloat16 and criterion.rows == 1 and cap is None and kernels.take(weight)
    size = KERNEL_CHUNK_BYTES // 2 if by_kernel else CHUNK_BYTES // 4
    return max(1, size // (len(weight) * criterion.rows)) * criterion.rows


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        criterion: CrossEntropy | Agreement,
        cap: float | None,
        product: Product,
        learning: bool,
    ) -> Tensor:
        given = (hidden, weight, bias)  # the sum of the chunks' gradients stays as exact as the weight is
        weight, bias = weight.to(hidden.dtype), None if bias is None else bias.to(hidden.dtype)
        grads = _Gradients(given, weight, ctx.needs_input_grad, product) if learning else None
        loss = _exactly(hidden.new_zeros(()))
        rows = _chunk(weight, criterion, cap)
        for start in range(0, len(hidden), rows):
            h, y = hidden[start : start + rows], targets[start : start + rows, None]
            logits = product(h, weight, bias)
            if cap is not None:
                logits = _exactly(logits).div_(cap).tanh_().mul_(cap)
            summed, gradient = criterion(logits, y, learning)
            loss += summed
            if grads is not None and gradient is not None:
                if cap is not None:
                    gradient.mul_(1 - (logits / cap).square_())  # the derivative of tanh
                grads.add(start, h, gradient.to(weight.dtype))
        if grads is not None:
            ctx.save_for_backward(grads.hidden, grads.weight, grads.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grads = (None if t is None else (t * upstream).to(t.dtype) for t in ctx.saved_tensors)
        return (*grads, None, None, None, None, None)


class _Gradients:
    """By hidden vectors, weight and bias, gathered while the chunks pass; None for what is not wanted."""

    def __init__(
        self, given: tuple[Tensor, Tensor, Tensor | None], weight: Tensor, wanted: Sequence[bool], product: Product
    ):
        (hidden, exact, bias), self.source, self.product = given, weight, product
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(exact, dtype=_exact(exact)) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=_exact(bias)) if bias is not None and wanted[2] else None

    def add(self, start: int, h: Tensor, gradient: Float[Tensor, "N V"]) -> None:
        if self.hidden is not None:
            self.hidden[start : start + len(h)] = self.product(gradient, self.source.t(), None)
        if self.weight is not None:
            kernels.accumulate(self.weight, self.product(gradient.t(), h.t(), None))
        if self.bias is not None:
            self.bias += gradient.sum(dim=0)

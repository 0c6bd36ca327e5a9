"""Cross-entropy of a linear output layer without its logits: computed, differentiated and dropped chunk by chunk.

The logits of a batch, tokens x vocabulary, are the largest tensor of a small translation model: written to memory once
forward and read three times backward they cost more than the matrix products themselves. Here a chunk of them lives in
the cache, becomes its own gradient in place, and is gone.

N tokens, D width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 8 << 20
"""Size of a chunk's logits: what a core's cache takes (measured in benchmarks/loss_chunks.py)."""


def linear_cross_entropy(
    hidden: Float[Tensor, "N D"],
    weight: Float[Tensor, "V D"],
    bias: Float[Tensor, " V"] | None,
    targets: Int[Tensor, " N"],
    *,
    smoothing: float = 0.0,
    ignore: int = 0,
    cap: float | None = None,
) -> Float[Tensor, ""]:
    """Sum over tokens of -sum_v q(v) log softmax(hidden weight^T + bias)(v), skipping targets equal to ``ignore``.

    With ``cap`` the softmax is that of cap tanh(logits / cap).

    q puts 1 - ``smoothing`` on the target and spreads ``smoothing`` evenly over the vocabulary
    (Szegedy et al., arXiv:1512.00567), as the 2017 recipe does with 0.1.
    """
    real = (targets != ignore).nonzero().squeeze(1)
    if len(real) < len(targets):
        hidden, targets = hidden.index_select(0, real), targets.index_select(0, real)
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, bias, targets, smoothing, cap, torch.is_grad_enabled())


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


def _exactly(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        smoothing: float,
        cap: float | None,
        learning: bool,
    ) -> Tensor:
        grads = _Gradients(hidden, weight, bias, ctx.needs_input_grad) if learning else None
        loss = _exactly(hidden.new_zeros(()))
        rows = max(1, CHUNK_BYTES // (4 * len(weight)))
        spread = smoothing / len(weight)
        for start in range(0, len(hidden), rows):
            h, y = hidden[start : start + rows], targets[start : start + rows, None]
            logits = _exactly(h @ weight.T if bias is None else torch.addmm(bias, h, weight.T))
            if cap is not None:
                logits.div_(cap).tanh_().mul_(cap)
            average = logits.mean(dim=1) if smoothing else 0.0
            picked = logits.gather(1, y).squeeze(1)
            log_p = F.log_softmax(logits, dim=1)
            log_norm = picked - log_p.gather(1, y).squeeze(1)
            loss += (log_norm - (1 - smoothing) * picked - smoothing * average).sum()
            if grads is not None:  # softmax - q, in the place of the log-probabilities
                gradient = log_p.exp_()
                if smoothing:
                    gradient -= spread
                gradient.scatter_add_(1, y, gradient.new_full((), smoothing - 1).expand_as(y))
                if cap is not None:
                    gradient.mul_(1 - (logits / cap).square_())  # the derivative of tanh
                grads.add(start, h, gradient.to(weight.dtype))
        if grads is not None:
            ctx.save_for_backward(grads.hidden, grads.weight, grads.bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        grads = (None if t is None else t * upstream.to(t.dtype) for t in ctx.saved_tensors)
        return (*grads, None, None, None, None)


class _Gradients:
    """By hidden vectors, weight and bias, gathered while the chunks pass; None for what is not wanted."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: Sequence[bool]):
        exact, self.source = torch.promote_types(weight.dtype, torch.float32), weight
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=exact) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=exact) if bias is not None and wanted[2] else None

    def add(self, start: int, h: Tensor, gradient: Float[Tensor, "N V"]) -> None:
        if self.hidden is not None:
            torch.mm(gradient, self.source, out=self.hidden[start : start + len(h)])
        if self.weight is not None and self.weight.dtype == gradient.dtype:
            self.weight.addmm_(gradient.T, h)
        elif self.weight is not None:
            self.weight += gradient.T @ h
        if self.bias is not None:
            self.bias += gradient.sum(dim=0)

"""Heads: scores that are unscaled or saturated, a softmax over the wrong dimension, heads that are dead or uniform.

H heads, Q queries, K keys, C channels.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import torch
from torch import Tensor, nn

from dragoman.decode.verify.checks import written_out
from dragoman.errors import ConfigError
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import AttentionCall, name_of, watch_attention
from dragoman.inspect.doctor.subject import ExaminedModel
from dragoman.model.interface import EvaluableModel


def attention_of(subject: ExaminedModel) -> list[AttentionCall]:
    """Return every attention of a forward pass.

    Raises:
        NotApplicable: none could be seen.
    """
    batch = subject.batch
    lengths = {batch.length} if batch.length else set()
    if batch.source is not None and batch.arguments[batch.source].ndim in (2, 3):
        lengths.add(batch.arguments[batch.source].shape[1 - batch.batch_dim])
    if batch.is_image:
        lengths |= set(range(2, 1025))
    if not lengths:
        raise NotApplicable("the batch has no positions")
    if isinstance(subject.model, EvaluableModel):
        lengths |= {-(-length // 16) * 16 for length in lengths}  # short rows are made wider for the softmax
    with torch.enable_grad(), _written_out(subject.model), watch_attention(subject.model, frozenset(lengths)) as calls:
        subject.run()
    if not calls:
        raise NotApplicable("no attention was seen in it")
    return list(calls)


@contextmanager
def _written_out(model: nn.Module) -> Iterator[None]:
    """Let attention of this package run the kernel that PyTorch's functions can be watched in."""
    with ExitStack() as stack:
        if isinstance(model, EvaluableModel):
            with suppress(ConfigError):  # a model without attention
                stack.enter_context(written_out(model))
        yield


def _shown(call: AttentionCall) -> str:
    return name_of(call.where)


class ScoresUnscaled(DoctorCheck[ExaminedModel]):
    """Scores that are not divided by sqrt(C), and weights that are all or nothing."""

    name = "scores"
    asks = "Are scores scaled, and do they leave the softmax a gradient?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        calls = attention_of(subject)
        found = [
            finding
            for judge in (self._unscaled, self._saturated, partial(_wrong_dimension, self))
            if (finding := judge(calls))
        ]
        yield from found

    def _unscaled(self, calls: list[AttentionCall]) -> Finding | None:
        known = [call for call in calls if call.slope and call.channels and call.channels >= 4]
        bad = [call for call in known if _is_unscaled(call)]
        if not bad:
            return None
        call = bad[0]
        assert call.slope is not None and call.channels is not None
        return self.finding(
            Severity.warning,
            "scores of attention are not scaled",
            evidence=f"scores are {call.slope:.2f} times the product of queries and keys of {call.channels} channels "
            f"({1 / math.sqrt(call.channels):.2f} is usual), their standard deviation is {_spread(call):.1f}; "
            f"{len(bad)} of {len(known)} attentions",
            numbers={"scale": call.slope, "channels": call.channels, "deviation": _spread(call)},
            cause="the division by sqrt(channels of a head) is missing",
            remedy="divide scores by sqrt(C), as F.scaled_dot_product_attention does, or start queries smaller by it",
            where=_shown(call),
        )

    def _saturated(self, calls: list[AttentionCall]) -> Finding | None:
        bad = [(call, largest) for call in calls if call.dim == -1 and (largest := _largest(call.weights)) > 0.95]
        if not bad:
            return None
        call, largest = bad[0]
        return self.finding(
            Severity.warning,
            "attention is saturated",
            evidence=f"the largest of at least four weights is {largest:.3f} on average; {len(bad)} of {len(calls)} "
            "attentions. The softmax passes on a gradient of at most "
            f"{largest * (1 - largest):.3f}, a quarter at best",
            numbers={"largest": largest, "attentions": len(bad)},
            cause="scores that are not scaled, or weights of queries and keys that are too large",
            remedy="scale scores by 1/sqrt(C); if they are, start from smaller weights or normalize queries and keys",
            where=_shown(call),
        )


def _wrong_dimension(check: DoctorCheck, calls: list[AttentionCall]) -> Finding | None:
    bad = [call for call in calls if call.dim != -1]
    if not bad:
        return None
    sums = bad[0].weights.float().sum(-1)
    spread = float((sums - 1).abs().max())
    return check.finding(
        Severity.error,
        "the softmax of attention does not run over the keys",
        evidence=f"weights of a query sum to between {float(sums.min()):.2f} and {float(sums.max()):.2f}; the softmax "
        f"ran over dimension {bad[0].dim}",
        numbers={"off": spread, "dimension": bad[0].dim},
        cause="softmax(dim=1), or another dimension than the last",
        remedy="take the softmax over the last dimension of scores (..., queries, keys)",
        where=_shown(bad[0]),
    )


def _is_unscaled(call: AttentionCall) -> bool:
    """Return whether scores are products of queries and keys as they are."""
    if call.slope is None or call.channels is None or call.sizes is None:
        return False
    alike = min(call.sizes) > 0.6 * max(call.sizes)  # where one side is smaller by far, it carries the scale
    return alike and call.slope > 1.5 / math.sqrt(call.channels) and _spread(call) > 0.5


def _spread(call: AttentionCall) -> float:
    """Return the standard deviation of a query's visible scores, averaged."""
    if call.scores is None:
        return 0.0
    visible = torch.isfinite(call.scores) & (call.scores > -1e3)
    scores = torch.where(visible, call.scores.float(), 0.0)
    count = visible.sum(-1, keepdim=True)
    mean = scores.sum(-1, keepdim=True) / count.clamp(min=1)
    variance = (torch.where(visible, scores - mean, 0.0)).square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    wide = count > 2
    return float(variance[wide].mean().sqrt()) if wide.any() else 0.0


def _largest(weights: Tensor) -> float:
    """Return the mean of the largest weight, over queries that see at least four keys."""
    seen = (weights > 0).sum(-1) >= 4
    # a saturated softmax underflows: queries of the last quarter see enough keys in any case
    seen[..., -(weights.shape[-2] // 4) :] |= weights.shape[-1] >= 8
    largest = weights.float().amax(-1)[seen]
    return float(largest.mean()) if largest.numel() else 0.0


class HeadsIdle(DoctorCheck[ExaminedModel]):
    """Heads that attend uniformly, or whose result reaches nothing."""

    name = "heads"
    asks = "Does each head attend to something, and does its result reach the output?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        calls = [call for call in attention_of(subject) if call.weights.ndim == 4 and call.dim == -1]
        if not calls:
            raise NotApplicable("its attention has no dimension of heads")
        uniform = [(call, heads) for call in calls if (heads := _uniform(call.weights))]
        exact = [(call, heads) for call, heads in uniform if _uniform(call.weights, 1e-7)]
        if exact:
            yield self._dead(exact, calls)
        elif uniform:
            count, of = sum(len(h) for _, h in uniform), sum(c.weights.shape[1] for c in calls)
            yield self.finding(
                Severity.note,
                "heads attend uniformly",
                evidence=f"{count} of {of} heads have weights within 0.1% of equal",
                numbers={"uniform": count, "heads": of},
                cause="a model that has not been trained yet, or heads that learned nothing",
                remedy="nothing before training; after it, fewer heads would do",
                where=_shown(uniform[0][0]),
            )

    def _dead(self, exact: list[tuple[AttentionCall, list[int]]], calls: list[AttentionCall]) -> Finding:
        call, heads = exact[0]
        return self.finding(
            Severity.warning,
            "heads are dead",
            evidence=f"heads {', '.join(map(str, heads))} of {call.weights.shape[1]} give every visible key exactly "
            f"the same weight; so in {len(exact)} of {len(calls)} attentions",
            numbers={"heads": len(heads), "attentions": len(exact)},
            cause="queries or keys that are zero: weights that start at zero, were pruned, or are not loaded",
            remedy="initialize queries and keys, or compare the names in the checkpoint with those of the model",
            where=_shown(call),
        )


def _uniform(weights: Tensor, tolerance: float = 1e-3) -> list[int]:
    """Return the heads whose weights are equal on all that a query sees, for queries that see at least three."""
    seen = weights > 0
    count = seen.sum(-1, keepdim=True)
    off = torch.where(seen, (weights * count - 1).abs(), 0.0).float().amax(-1)  # (B, H, Q)
    off = off.masked_fill(count[..., 0] < 3, 0.0)
    wide = (count[..., 0] >= 3).any(-1).any(0)
    return [head for head in range(weights.shape[1]) if wide[head] and float(off[:, head].max()) <= tolerance]

"""Micro-batches: losses that weigh tokens differently when a batch is divided, and losses that count padding."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dragoman.inspect.doctor.batch import IGNORED_LABEL, InputBatch
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.subject import ExaminedModel, mean_of

LOSS = "(loss)"


def as_given(batch: InputBatch, like: Any) -> Any:
    """Return a batch in the form that the user gave one in."""
    if isinstance(like, Tensor):
        return batch.value
    if isinstance(like, Mapping):
        return {name: batch.arguments.get(name, batch.labels) for name in like}
    if isinstance(like, tuple | list):
        parts = [*batch.arguments.values(), *([batch.labels] if batch.labels is not None else [])]
        return type(like)(parts)
    return batch


class MicroBatches(DoctorCheck[ExaminedModel]):
    """Losses that weigh tokens differently when a batch is divided, and losses that count padding."""

    name = "micro-batches"
    asks = "Is the gradient the same when a batch is learned in parts, and free of padding?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        facts = subject.facts
        if facts.loss is None and facts.accumulate is None:
            raise NotApplicable("no loss of yours is known: pass --loss")
        if subject.batch.rows < 2:
            raise NotApplicable("the batch has a single row")
        if facts.loss is not None:
            yield from self._padding(subject)
        whole = _uneven(subject)
        parts = [whole.select_rows([0]), whole.select_rows(range(1, whole.rows))]
        given = subject.given
        if facts.accumulate is not None:
            yield from self._accumulated(subject, [as_given(b, given) for b in (whole, *parts)])
        elif facts.loss is not None:
            yield from self._means(subject, [as_given(b, given) for b in (whole, *parts)])

    def _accumulated(self, subject: ExaminedModel, batches: Sequence[Any]) -> Iterator[Finding]:
        assert subject.facts.accumulate is not None
        gradients = []
        for parts in (batches[:1], batches[1:]):
            with subject.trainable() as model, torch.enable_grad():
                model.zero_grad()
                subject.facts.accumulate(model, parts)
                gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        found = float((gradients[0] - gradients[1]).norm() / gradients[0].norm().clamp(min=1e-12))
        if found > 1e-3:
            yield self._wrong(
                f"in two parts of unlike size, the gradient differs by {found:.0%} from that of the whole batch", found
            )

    def _means(self, subject: ExaminedModel, batches: Sequence[Any]) -> Iterator[Finding]:
        assert subject.facts.loss is not None
        with torch.no_grad():
            found = [subject.facts.loss(subject.model, batch) for batch in batches]
        if isinstance(found[0], tuple | list):
            sums = [(float(s), float(n)) for s, n in found]
            total = sums[1][0] + sums[2][0], sums[1][1] + sums[2][1]
            if abs(total[0] - sums[0][0]) > 1e-3 * abs(sums[0][0]) or total[1] != sums[0][1]:
                yield self._wrong(
                    f"sums of parts are {total[0]:.4g} over {total[1]:.0f}, of the whole {sums[0][0]:.4g} over "
                    f"{sums[0][1]:.0f}",
                    abs(total[0] / sums[0][0] - 1),
                )
            return
        whole, *parts = map(float, found)
        off = abs(sum(parts) / len(parts) - whole) / max(abs(whole), 1e-12)
        if off > 1e-3:
            yield self.finding(
                Severity.note,
                "the loss is a mean, and means of parts are not the mean",
                evidence=f"{whole:.4f} for the whole batch, {sum(parts) / 2:.4f} as the mean of two parts",
                numbers={"whole": whole, "mean of parts": sum(parts) / 2},
                cause="a mean over the tokens of each part weighs tokens of short parts more",
                remedy="harmless without accumulation; with it, return the sum and divide once by all tokens",
                where=LOSS,
            )

    def _padding(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch = subject.batch
        labels, pad = batch.answers, batch.pad
        if labels is None or pad is None or batch.length is None or labels.shape != batch.value.shape:
            return
        assert subject.facts.loss is not None
        short = batch.length - batch.length // 2
        known = _label_of_padding(batch)
        label = pad if known is None else known
        without, padded = (
            _mean_loss(subject, x) for x in (batch.select_times(0, short), _with_padding(batch, short, pad, label))
        )
        if _alike(without, padded):
            return
        may_ignore = known is None and _ignores_label(subject, _with_padding(batch, short, pad, IGNORED_LABEL), without)
        remedy = f"pass ignore_index={label} to the cross-entropy, and divide by the number of tokens"
        yield self.finding(
            Severity.warning if may_ignore else Severity.error,
            "the loss counts padding",
            evidence=f"{without:.4f} for rows of {short} tokens, {padded:.4f} for the same rows with "
            f"{batch.length - short} columns of padding, labelled {label}",
            numbers={"without": without, "with": padded},
            cause="padding is among the labels, or the mean is over all positions",
            remedy=f"where its label is {IGNORED_LABEL}, nothing: this batch has none; else {remedy}"
            if may_ignore
            else remedy,
            where=LOSS,
        )

    def _wrong(self, evidence: str, found: float) -> Finding:
        return self.finding(
            Severity.error,
            "the loss is averaged wrongly over micro-batches",
            evidence=evidence,
            numbers={"difference": found},
            cause="each part is divided by its own number of tokens, and the means are added or averaged",
            remedy="sum the losses of all parts, and divide once by the number of tokens in all of them",
            where=LOSS,
        )


def _uneven(subject: ExaminedModel) -> InputBatch:
    """Return the batch with rows of unlike length, where it can be padded."""
    batch = subject.batch
    if batch.pad is None or batch.length is None or batch.length < 4 or not batch.is_ids:
        return batch
    known = _label_of_padding(batch)
    label = batch.pad if known is None else known
    return _with_padding(batch, batch.length // 2, batch.pad, label, rows=range(1, batch.rows))


def _label_of_padding(batch: InputBatch) -> int | None:
    """Return the label that padding has, by the labels of the batch or by the convention of `transformers`; None where
    no label says it."""
    labels = batch.answers
    if labels is None:
        return None
    if bool((labels == IGNORED_LABEL).any()) or (batch.labels_name is not None and batch.masks):
        return IGNORED_LABEL
    return batch.pad if batch.pad is not None and bool((labels == batch.pad).any()) else None


def _mean_loss(subject: ExaminedModel, batch: InputBatch) -> float:
    assert subject.facts.loss is not None
    with torch.no_grad():
        return float(mean_of(subject.facts.loss(subject.model, as_given(batch, subject.given))))


def _ignores_label(subject: ExaminedModel, padded: InputBatch, without: float) -> bool:
    """Return whether the loss of the ``padded`` batch is that ``without`` padding; a loss may refuse its labels."""
    try:
        return _alike(without, _mean_loss(subject, padded))
    except (IndexError, RuntimeError):
        return False


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-3 * max(abs(a), 1e-12)


def _with_padding(batch: InputBatch, start: int, pad: int, label: int, rows: Sequence[int] | None = None) -> InputBatch:
    """Return the batch with padding from ``start`` on, and ``label`` as its labels."""
    hidden = torch.zeros_like(batch.value, dtype=torch.bool)
    chosen = list(range(batch.rows) if rows is None else rows)
    if batch.batch_dim == 0:
        hidden[chosen, start:] = True
    else:
        hidden[start:, chosen] = True
    changed: dict[str, Any] = {batch.tokens: batch.value.masked_fill(hidden, pad)}
    for mask in batch.masks_of(batch.tokens):
        by_row = hidden if batch.batch_dim == 0 else hidden.T
        changed[mask.name] = (~by_row if mask.keeps else by_row).to(batch.arguments[mask.name].dtype)
    labels = batch.labels
    if batch.labels_name is not None:
        changed[batch.labels_name] = batch.arguments[batch.labels_name].masked_fill(hidden, label)
    elif labels is not None and labels.shape == hidden.shape:
        labels = labels.masked_fill(hidden, label)
    return dataclasses.replace(batch.replace(**changed), labels=labels)

"""Corners: a fully padded row, an empty text, one token, the longest text; and outputs that are not finite."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.batch import InputBatch
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import MODEL, ModuleEvent, name_of
from dragoman.inspect.doctor.subject import ExaminedModel

MOST_POSITIONS = 2048
"""Longest text that is tried."""


def finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def first_not_finite(events: list[ModuleEvent]) -> str:
    """Return the module in which a value first was NaN or infinite."""
    for event in events:
        # masks of minus infinity are arguments, not results
        if any(bool(torch.isnan(v).any()) or (not event.entering and not finite(v)) for v in event.values):
            return name_of(event.caller if event.entering else event.name)
    return MODEL


class CornerCases(DoctorCheck[ExaminedModel]):
    """Inputs at the edge of what a model takes."""

    name = "corners"
    asks = "Are outputs finite for a fully padded row, an empty text, one token, and the longest text?"
    compares = False

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if not finite(subject.clean):
            yield self._found(Severity.error, "outputs are not finite", "an ordinary batch", subject, subject.batch)
            return
        if subject.batch.length is None:
            raise NotApplicable("its input has no positions")
        yield from self._one_token(subject)
        yield from self._empty(subject)
        yield from self._longest(subject)
        yield from self._padded_row(subject)

    def _one_token(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch = subject.batch.select_times(0, 1)
        answer = _tried(subject, batch)
        if isinstance(answer, Exception):
            yield self._raised(Severity.note, "a text of one token", answer)
        elif not finite(answer):
            yield self._found(Severity.error, "outputs are not finite", "a text of one token", subject, batch)

    def _empty(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch = subject.batch.select_times(0, 0)
        answer = _tried(subject, batch)
        if isinstance(answer, Tensor) and not finite(answer):
            yield self._found(Severity.warning, "outputs are not finite", "an empty text", subject, batch)

    def _longest(self, subject: ExaminedModel) -> Iterator[Finding]:
        most = longest(subject.model)
        if most is None or most > MOST_POSITIONS or subject.batch.source is not None:
            return
        batch = stretched(subject.batch.select_rows([0]), most)
        if batch is None:
            return
        answer = _tried(subject, batch)
        what = f"the longest text, {most} tokens"
        if isinstance(answer, Exception):
            yield self._raised(Severity.error, what, answer)
        elif not finite(answer):
            yield self._found(Severity.error, "outputs are not finite", what, subject, batch)

    def _padded_row(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch = subject.batch
        for name in filter(None, (batch.tokens, batch.source)):
            value = batch.arguments[name]
            if not batch.masks_of(name) or value.ndim > 3 or batch.rows < 2:
                continue
            whole = value.shape[1 - batch.batch_dim]
            padded = batch.padded(name, [whole] * (batch.rows - 1) + [0])
            answer = _tried(subject, padded)
            if isinstance(answer, Exception) or finite(answer):
                continue
            spreads = not finite(answer[:-1])
            yield self._found(
                Severity.error if spreads else Severity.warning,
                "one padded row makes other rows NaN" if spreads else "a fully padded row gives NaN",
                f"a row of nothing but padding in {name}",
                subject,
                padded,
            )

    def _found(self, severity: Severity, title: str, what: str, subject: ExaminedModel, batch: InputBatch) -> Finding:
        answer = subject.answer(batch)
        wrong = int((~torch.isfinite(answer)).sum())
        return self.finding(
            severity,
            title,
            evidence=f"{wrong} of {answer.numel()} outputs for {what}; a single such row in a batch makes every "
            "gradient NaN",
            numbers={"not finite": wrong, "of": answer.numel()},
            cause="a softmax over nothing but minus infinity, a division by the number of tokens when that is 0, or "
            "an overflow",
            remedy="hide with the lowest finite number instead of minus infinity, or show such a row one key; clamp "
            "counts at 1",
            where=first_not_finite(subject.trace(batch)),
        )

    def _raised(self, severity: Severity, what: str, error: Exception) -> Finding:
        return self.finding(
            severity,
            f"the model fails on {what}",
            evidence=f"{type(error).__name__}: {_line(error)}",
            cause="a table of positions that is too short, or code that needs more tokens",
            remedy="make the table as long as the model says it reads, or refuse such inputs by a message",
            where=MODEL,
        )


def _tried(subject: ExaminedModel, batch: InputBatch) -> Tensor | Exception:
    try:
        return subject.answer(batch)
    except Exception as error:
        return error


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]


def stretched(batch: InputBatch, length: int) -> InputBatch | None:
    """Return the batch with its positions repeated up to ``length``; None where it cannot be stretched."""
    now, dim = batch.length, 1 - batch.batch_dim
    if not now:
        return None
    order = torch.arange(length, device=batch.value.device) % now
    changed: dict[str, Any] = {batch.tokens: batch.value.index_select(dim, order)}
    for mask in batch.masks_of(batch.tokens):
        changed[mask.name] = batch.arguments[mask.name].index_select(1, order)
    others = set(batch.arguments) - set(changed)
    aligned = [n for n in others if isinstance(v := batch.arguments[n], Tensor) and now in v.shape[:2]]
    return None if aligned else batch.replace(**changed)


def longest(model: nn.Module) -> int | None:
    """Return the number of positions that a model says it reads; None where it says nothing."""
    most = getattr(model, "max_length", None)
    if isinstance(most, int):
        return most
    cfg = getattr(model, "config", None)
    for name in ("max_position_embeddings", "n_positions", "block_size", "max_len", "context_length"):
        for holder in (cfg, model):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value - _offset(model)
    return None


def _offset(model: nn.Module) -> int:
    """Return the places in a table of positions that are reserved, as in RoBERTa, which counts from padding."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0

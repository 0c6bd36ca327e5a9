"""Rows: outputs that depend on other rows, on the number of rows, on their order, or on the side of the padding."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.leaks import NEGLIGIBLE
from dragoman.inspect.doctor.observe import MODEL, Symptom, by_position, locate, name_of
from dragoman.inspect.doctor.subject import ExaminedModel


class RowsDepend(DoctorCheck[ExaminedModel]):
    """Rows of a batch that see each other."""

    name = "rows"
    asks = "Does a row's output depend on the other rows, or on its place in the batch?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if subject.batch.rows < 2:
            raise NotApplicable("the batch has a single row")
        for row in (0, subject.batch.rows - 1):  # a recurrence along the rows shows the first one nothing
            strength, change = self._gradient(subject, row), self._change(subject, row)
            if strength > NEGLIGIBLE or change > subject.tolerance:
                yield self._depends(subject, row, strength, change)
                return
        yield from self._placed(subject)

    def _depends(self, subject: ExaminedModel, row: int, strength: float, change: float) -> Finding:
        changed = subject.batch.with_tokens(self._others_changed(subject, row))
        return self.finding(
            Severity.error,
            "rows of a batch depend on each other",
            evidence=f"the gradient of row {row}'s output in other rows is {strength:.1e} of that in its own, and it "
            f"changes by {change:.1e} of its size when they change",
            numbers={"gradient": strength, "difference": change},
            cause="rows and positions are confused (batch_first), a norm or a mean runs over the rows, or a view "
            "mixes dimensions",
            remedy="check which dimension each module takes as rows; if yours are in dimension 1, say so "
            "(--batch-dim 1, batch_dim=1)",
            where=locate(subject.trace(), subject.trace(changed), _row_differs(subject, row)),
        )

    def _gradient(self, subject: ExaminedModel, row: int) -> float:
        try:
            strength = subject.influence(row=row)
        except NotApplicable:
            return 0.0
        if strength.ndim < 3 or strength.shape[1] != subject.batch.rows:
            return 0.0
        own = float(strength[:, row].max())
        others = torch.cat([strength[:, :row], strength[:, row + 1 :]], dim=1)
        return float(others.max()) / own if own else 0.0

    def _others_changed(self, subject: ExaminedModel, row: int) -> Tensor:
        value = subject.batch.value
        others = torch.arange(subject.batch.rows, device=value.device) != row
        shape = [1] * value.ndim
        shape[subject.batch.batch_dim] = subject.batch.rows
        return torch.where(others.view(shape), subject.other_tokens(), value)

    def _change(self, subject: ExaminedModel, row: int) -> float:
        changed = subject.answer(subject.batch.with_tokens(self._others_changed(subject, row)))
        return subject.difference(subject.clean[row], changed[row])

    def _placed(self, subject: ExaminedModel) -> Iterator[Finding]:
        """Compare a row with itself in another place."""
        order = [*range(1, subject.batch.rows), 0]
        moved = subject.batch.select_rows(order)
        found = subject.difference(subject.clean[order], subject.answer(moved))
        if found <= subject.tolerance:
            return
        same = subject.batch.select_rows([0] * subject.batch.rows)

        def symptom(a: Tensor, b: Tensor) -> bool:
            x = _by_row(subject, a)
            return x is not None and subject.differs(x[0], x[1])

        trace = subject.trace(same)
        yield self.finding(
            Severity.error,
            "a row's output depends on its place in the batch",
            evidence=f"moved to another row, the same text gives outputs that differ by {found:.1e} of their size",
            numbers={"difference": found},
            cause="positions are added along the rows: pe[: x.size(0)] with rows in dimension 0",
            remedy="index positions by the dimension of time: pe[:, : x.size(1)]",
            where=locate(trace, trace, symptom),
        )


def _by_row(subject: ExaminedModel, x: Tensor) -> Tensor | None:
    """Return an inner tensor with rows first, or None."""
    found, rows = subject.at_positions(x), subject.batch.rows
    if found is not None:
        return found
    return x if x.ndim and x.shape[0] == rows else None


def _row_differs(subject: ExaminedModel, row: int) -> Symptom:
    def symptom(a: Tensor, b: Tensor) -> bool:
        x, y = _by_row(subject, a), _by_row(subject, b)
        return x is not None and y is not None and subject.differs(x[row], y[row])

    return symptom


class BatchSize(DoctorCheck[ExaminedModel]):
    """Answers of a row alone and in a batch."""

    name = "batch size"
    asks = "Is a row's output the same alone as in a batch?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        if subject.batch.rows < 2:
            raise NotApplicable("the batch has a single row")
        alone = subject.answer(subject.batch.select_rows([0]))
        found = subject.difference(subject.clean[:1], alone)
        if found > subject.tolerance:
            yield self.finding(
                Severity.error,
                "a row's output depends on the number of rows",
                evidence=f"alone, the first row's output differs by {found:.1e} of its size",
                numbers={"difference": found},
                cause="statistics over the batch in evaluation, a capacity that rows compete for, or a view that "
                "mixes rows",
                remedy="compute nothing over the dimension of rows; keep running statistics for evaluation",
                where="(model)" if alone.shape != subject.clean[:1].shape else self._place(subject),
            )

    def _place(self, subject: ExaminedModel) -> str:
        both, single = subject.trace(), subject.trace(subject.batch.select_rows([0]))
        length = subject.batch.length or 0
        for a, b in zip(both, single, strict=False):
            for x, y in zip(a.values, b.values, strict=False):
                left, right = by_position(x, subject.batch.rows, length), by_position(y, 1, length)
                if left is None or right is None:
                    continue
                if left[:1].shape == right.shape and subject.differs(left[:1], right):
                    return name_of(a.caller if a.entering else a.name)
        return MODEL


class PaddingSide(DoctorCheck[ExaminedModel]):
    """Answers with padding on the left and on the right."""

    name = "padding side"
    asks = "Are outputs the same with padding on the left as on the right?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch, length = subject.batch, subject.need_positions()
        if not batch.masks_of(batch.tokens) and (batch.pad is None or not batch.is_ids):
            raise NotApplicable("neither a padding mask nor an id of padding is known")
        if length < 4:
            raise NotApplicable("the batch has fewer than four positions")
        lengths = [length - min(2 + row, length - 2) for row in range(batch.rows)]
        answers = {side: subject.answer(batch.padded(batch.tokens, lengths, side)) for side in ("left", "right")}
        found = max(
            subject.difference(answers["right"][row, :n], answers["left"][row, length - n :])
            for row, n in enumerate(lengths)
        )
        if found > subject.tolerance:
            writes = bool(batch.causal)
            yield self.finding(
                Severity.warning if writes else Severity.note,
                "outputs depend on the side of the padding",
                evidence=f"with padding on the left, outputs at the same tokens differ by {found:.1e} of their size",
                numbers={"difference": found},
                cause="positions are counted from the first column, padding included",
                remedy="count positions of tokens alone, (mask.cumsum(1) - 1).clamp(min=0), or pass position_ids; "
                "batches of prompts are padded on the left"
                if writes
                else "pad on the right, as in training",
                where="(model)",
            )

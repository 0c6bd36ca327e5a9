"""Leaks: outputs that depend on later tokens, or on padding.

T positions, B rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dragoman.inspect.doctor.batch import InputBatch
from dragoman.inspect.doctor.finding import DoctorCheck, Finding, NotApplicable, Severity
from dragoman.inspect.doctor.observe import by_position, locate
from dragoman.inspect.doctor.subject import ExaminedModel

NEGLIGIBLE = 1e-5
"""Share of the usual gradient below which there is none: masks of -1e4 and sums in float32 leave such traces."""


class FutureLeak(DoctorCheck[ExaminedModel]):
    """Outputs that depend on tokens that come later."""

    name = "future leak"
    asks = "Does an output depend on tokens that come after it?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        length = subject.need_positions()
        causal = subject.batch.causal
        if causal is False:
            raise NotApplicable(f"it may see both ways: {subject.batch.why_causal}")
        if length < 3:
            raise NotApplicable("the batch has fewer than three positions")
        pattern = self._pattern(subject, length)
        later = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
        leaks = pattern & later
        if not leaks.any():
            return
        share = float(leaks.sum() / later.sum())
        almost = share < 0.5 * float((pattern & later.T).sum() / later.sum())  # the past is seen
        if causal is None and not almost:
            yield self._undeclared(subject, share)
            return
        cause, remedy = _explain(pattern, leaks, later)
        t, seen = map(int, leaks.nonzero()[0])
        yield self.finding(
            Severity.error if causal else Severity.warning,
            "outputs depend on later tokens",
            evidence=f"{share:.0%} of the pairs (output, later token) have a gradient; for example output {t} depends "
            f"on token {seen} ({self._meant(subject)})",
            numbers={"share": share, "output": t, "token": seen},
            cause=cause,
            remedy=remedy,
            where=self._place(subject, length),
        )

    def _meant(self, subject: ExaminedModel) -> str:
        return f"meant to be causal: {subject.batch.why_causal}" if subject.batch.causal else "most of them have none"

    def _pattern(self, subject: ExaminedModel, length: int) -> Tensor:
        """Return which output depends on which token, as booleans (T, T): by gradient, and by change of the last."""
        try:
            strength = subject.influence().sum(dim=1)
            found = strength > NEGLIGIBLE * strength.diagonal().median().clamp(min=strength.max() * 1e-3)
        except NotApplicable:
            found = torch.zeros(length, length, dtype=torch.bool)
        changed = subject.answer(_last_changed(subject, length - 1))
        before = subject.clean
        for t in range(length - 1):
            if subject.differs(before[:, t], changed[:, t]):
                found[t, length - 1] = True
        return found

    def _undeclared(self, subject: ExaminedModel, share: float) -> Finding:
        return self.finding(
            Severity.note,
            "every output depends on later tokens",
            evidence=f"{share:.0%} of the pairs (output, later token) have a gradient, and nothing says that the model "
            "predicts the next token",
            numbers={"share": share},
            cause="a model that reads both ways, or a model that writes without a causal mask",
            remedy="right for a model that reads; if it writes, say so (--causal, causal=True) and examine it again",
            where=self._place(subject, subject.need_positions()),
        )

    def _place(self, subject: ExaminedModel, length: int) -> str:
        start = length - 1

        def symptom(a: Tensor, b: Tensor) -> bool:
            x, y = subject.at_positions(a), subject.at_positions(b)
            return x is not None and y is not None and subject.differs(x[:, :start], y[:, :start])

        return locate(subject.trace(), subject.trace(_last_changed(subject, start)), symptom)


def _last_changed(subject: ExaminedModel, start: int) -> InputBatch:
    """Return the batch with other tokens from ``start`` on."""
    batch = subject.batch
    other, value = subject.other_tokens(), batch.value.clone()
    if batch.batch_dim == 0:
        value[:, start:] = other[:, start:]
    else:
        value[start:] = other[start:]
    return batch.with_tokens(value)


def _explain(pattern: Tensor, leaks: Tensor, later: Tensor) -> tuple[str, str]:
    """Return the likely cause and the remedy for which outputs depend on which tokens."""
    length = len(pattern)
    earlier = torch.tril(torch.ones_like(later), -1)
    offset = torch.arange(length)[None] - torch.arange(length)[:, None]
    reach = int(offset[leaks].max())
    if reach < length // 2 and torch.equal(leaks, later & (offset <= reach)):  # each layer adds its own reach
        return (
            "the causal mask reaches one place too far in each layer",
            "hide the diagonal above the main one, too: torch.triu(ones, diagonal=1) is True where attention is "
            "hidden, and inputs must be shifted against labels",
        )
    if leaks.sum() >= 0.9 * later.sum() and (pattern & earlier).sum() <= 0.1 * earlier.sum():
        return (
            "the causal mask is turned around: the past is hidden instead of the future",
            "transpose or negate the mask; in PyTorch's modules True hides, in its attention function True shows",
        )
    if leaks.sum() >= 0.9 * later.sum():
        return (
            "no causal mask, one that is not passed on, or one that is applied after the softmax or with 0 instead of "
            "minus infinity",
            "add the mask to the scores before the softmax, as minus infinity where a key is later than the query",
        )
    if leaks.any(dim=1).sum() < length:
        return (
            "positions are mixed outside attention: a view that confuses heads with positions, a convolution that is "
            "not causal, or a norm over time",
            "transpose before you reshape; pad convolutions on the left alone; normalize channels, not positions",
        )
    return ("the mask hides only some of the later tokens", "compare the mask with torch.ones(T, T).tril()")


# ---- padding ---------------------------------------------------------------------------------------


class PaddingLeak(DoctorCheck[ExaminedModel]):
    """Outputs at tokens that depend on padding."""

    name = "padding leak"
    asks = "Does an output at a token depend on padding, in itself or in its gradient?"

    def run(self, subject: ExaminedModel) -> Iterator[Finding]:
        batch, found = subject.batch, 0
        for name in filter(None, (batch.tokens, batch.source)):
            if _length(batch, name) >= 4 and (batch.masks_of(name) or (batch.pad is not None and _is_ids(batch, name))):
                found += 1
                yield from self._one(subject, name)
        if not found:
            raise NotApplicable(
                "neither a padding mask nor an id of padding is known: pass a mask in the batch, or say --pad"
            )

    def _one(self, subject: ExaminedModel, name: str) -> Iterator[Finding]:
        batch = subject.batch
        lengths = _uneven(batch.rows, _length(batch, name))
        padded, keep, gradient = self._measured(subject, name, lengths)
        alone = self._alone(subject, padded, name, lengths)
        if gradient <= NEGLIGIBLE and alone <= subject.tolerance and batch.causal and batch.masks_of(name):
            # padding behind a text is future; a mask promises that padding before it is hidden, too
            padded, keep, gradient = self._measured(subject, name, lengths, side="left")
        if gradient <= NEGLIGIBLE and alone <= subject.tolerance:
            return
        part = "its source's padding" if name == batch.source else "padding"
        yield self.finding(
            Severity.error,
            f"outputs depend on {part}",
            evidence=f"the gradient with respect to padding is {gradient:.1e} of that with respect to tokens, and a "
            f"row answers differently beside longer rows by {alone:.1e} of its size",
            numbers={"gradient": gradient, "difference": alone},
            cause="no padding mask, one that is not passed on to every attention (cross-attention has its own), one "
            "with the meaning of True and False turned around, or numbers where booleans are expected",
            remedy="hide padded keys before every softmax: key_padding_mask is True on padding in PyTorch's modules, "
            "attention_mask is 1 on tokens in transformers; and leave padding out of means over positions",
            where=self._place(subject, padded, name, keep),
        )

    def _measured(
        self, subject: ExaminedModel, name: str, lengths: list[int], side: str = "right"
    ) -> tuple[InputBatch, Tensor, float]:
        """Return the batch padded on a side, its mask, and the share of the gradient that reaches padding."""
        padded = subject.batch.padded(name, lengths, side)
        keep = padded.keep_of(name)
        assert keep is not None
        return padded, keep, self._gradient(subject, padded, name, keep)

    def _gradient(self, subject: ExaminedModel, padded: InputBatch, name: str, keep: Tensor) -> float:
        """Return the share of the gradient that reaches padding, from outputs at tokens."""
        try:
            strength = subject.influence(padded, name)  # (T of outputs, B, T of inputs)
        except NotApplicable:
            return 0.0
        if strength.shape[-2:] != keep.shape:
            return 0.0
        keep = keep.cpu()
        if name == subject.batch.tokens and subject.answers_positions:
            strength = strength * keep.T[:, :, None]  # only outputs at tokens count
        most = float(strength[:, keep].max())
        hidden = strength[:, ~keep]
        return float(hidden.max()) / most if most and hidden.numel() else 0.0

    def _alone(self, subject: ExaminedModel, padded: InputBatch, name: str, lengths: list[int]) -> float:
        """Return the largest difference between a shorter row's outputs and those of the row without padding."""
        row = min(range(len(lengths)), key=lambda i: lengths[i])
        if name == subject.batch.source or subject.batch.batch_dim == 1:
            return 0.0  # the gradient decides
        single = padded.select_rows([row])
        if name != subject.batch.tokens or single.length is None:
            return 0.0
        try:
            without = subject.answer(single.select_times(0, lengths[row]))
            beside = subject.answer(single)
        except Exception:  # the model takes no other length: the gradient decides
            return 0.0
        return subject.difference(without, beside[:, : lengths[row]] if subject.answers_positions else beside)

    def _place(self, subject: ExaminedModel, padded: InputBatch, name: str, keep: Tensor) -> str:
        """Return the first module whose outputs at tokens change with what stands on padding."""
        value = padded.arguments[name]
        by_row = value if padded.batch_dim == 0 else value.transpose(0, 1)
        rows, length = by_row.shape[:2]
        traces = []
        for seed in (1, 2):
            with _noise_on_padding(subject, padded, name, keep, seed) as other:
                traces.append(subject.trace(other))

        def symptom(a: Tensor, b: Tensor) -> bool:
            x, y = (by_position(each, rows, length) for each in (a, b))
            if x is not None and y is not None:
                return subject.differs(x[keep], y[keep])
            return name == subject.batch.source and a.shape[:1] == (rows,) and subject.differs(a, b)

        return locate(traces[0], traces[1], symptom)


@contextmanager
def _noise_on_padding(
    subject: ExaminedModel, padded: InputBatch, name: str, keep: Tensor, seed: int
) -> Iterator[InputBatch]:
    """Give the batch with other vectors on padding, drawn with a seed.

    Ids of padding cannot be changed where a model knows padding by its id, so their embeddings are.
    """
    value = padded.arguments[name]
    hidden = ~keep if padded.batch_dim == 0 else ~keep.T
    draw = torch.Generator().manual_seed(seed)
    if value.is_floating_point():
        noise = torch.randn(value.shape, generator=draw).to(value.device, value.dtype)
        yield padded.with_tokens(torch.where(hidden[..., None], noise, value), name)
        return

    def hook(module: nn.Module, arguments: tuple, result: Tensor) -> Tensor | None:
        ids = arguments[0] if arguments else None
        if not isinstance(ids, Tensor) or ids.shape != value.shape or not torch.equal(ids, value):
            return None
        noise = torch.randn(result.shape, generator=draw).to(result.device, result.dtype)
        return torch.where(hidden[..., None], noise, result)

    tables = [module for module in subject.model.modules() if isinstance(module, nn.Embedding)]
    hooks = [table.register_forward_hook(hook, prepend=True) for table in tables]
    try:
        yield padded
    finally:
        for each in hooks:
            each.remove()


def _length(batch: InputBatch, name: str) -> int:
    value = batch.arguments[name]
    return value.shape[1 - batch.batch_dim] if 2 <= value.ndim <= 3 else 0


def _is_ids(batch: InputBatch, name: str) -> bool:
    return not batch.arguments[name].is_floating_point()


def _uneven(rows: int, length: int) -> list[int]:
    """Return a length for each row: the first is whole, the last the shortest."""
    return [max(2, length - (length // 2) * row // max(1, rows - 1)) for row in range(rows)]

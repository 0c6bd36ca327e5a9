"""State that sums up the past in tensors of fixed size, as recurrent, state-space and linear layers keep it.

R rows, T newest tokens.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.model.caches.state import LayerState

Summary = tuple[Tensor, ...]
"""Tensors that sum up all tokens so far; the first dimension of each is the rows."""


class SummaryState(LayerState):
    """Summary of all tokens so far.

    Taking tokens back needs the summaries from before them: these are kept once ``allow_rewind`` asks for it, and
    tokens are then read one by one.
    """

    def __init__(self, *, remembers: bool):
        self.remembers = remembers
        self.value: Summary | None = None
        """The summary; None before the first token."""
        self.rewindable = 0
        self.older: list[Summary | None] = []
        """Summaries before each of the newest ``rewindable`` tokens, the newest last."""

    def read(
        self, scan: Callable[..., tuple[Tensor, Summary]], *inputs: Tensor | None, empty: Summary | None = None
    ) -> Tensor:
        """Read the newest tokens: call ``scan(summary, *inputs)``, which returns (outputs, summary after them).

        Args:
            scan: the layer's parallel or stepwise form; ``summary`` is ``empty`` before the first token.
            inputs: what the layer reads for each token, (R, T, ...) each; a first dimension of 1 applies to every row.
            empty: the summary of nothing.

        Returns:
            The outputs (R, T, ...).
        """
        start = empty if self.value is None else self.value
        if not self.rewindable:
            outputs, after = scan(start, *inputs)
            if self.remembers:
                self.value = after
            return outputs
        length = max(x.shape[1] for x in inputs if x is not None)
        outputs = []
        for i in range(length):
            self.older.append(self.value)
            one = (None if x is None else x[:, i : i + 1] for x in inputs)
            output, self.value = scan(empty if self.value is None else self.value, *one)
            outputs.append(output)
        del self.older[: max(0, len(self.older) - self.rewindable)]
        return torch.cat(outputs, dim=1)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        self.value, *self.older = (
            summary and tuple(part.index_select(0, rows) for part in summary) for summary in (self.value, *self.older)
        )

    def join(self, other: LayerState) -> None:
        assert isinstance(other, SummaryState)
        if self.value is None or other.value is None:
            return
        self.value = tuple(torch.cat(both) for both in zip(self.value, other.value, strict=True))
        self.older = []  # the rows differ in age: only tokens read together can be taken back

    def allow_rewind(self, tokens: int) -> None:
        self.rewindable = tokens

    def rewind(self, tokens: int) -> None:
        if tokens:
            self.value = self.older[-tokens]
            del self.older[-tokens:]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for summary in (self.value, *self.older) for part in summary or ())


class JoinedState(LayerState):
    """Several states of one layer, such as those of its convolution and of its recurrence."""

    def __init__(self, *parts: LayerState):
        self.parts: Sequence[LayerState] = parts
        self.remembers = any(part.remembers for part in parts)

    def reorder(self, rows: Int[Tensor, " R"]) -> None:
        for part in self.parts:
            part.reorder(rows)

    def join(self, other: LayerState) -> None:
        assert isinstance(other, JoinedState)
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            mine.join(theirs)

    def forget(self, retained: Int[Tensor, " K"]) -> None:
        for part in self.parts:
            part.forget(retained)

    def allow_rewind(self, tokens: int) -> None:
        for part in self.parts:
            part.allow_rewind(tokens)

    def rewind(self, tokens: int) -> None:
        for part in self.parts:
            part.rewind(tokens)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

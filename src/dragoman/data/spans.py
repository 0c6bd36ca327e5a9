"""Questions with their contexts as tensors, and answers as spans of tokens.

A row is bos question eos context eos, as BERT has it ([CLS] question [SEP] context [SEP]); an imported tokenizer may
put more between the two, as RoBERTa's does (<s> question </s></s> context </s>). A context that is too long
is read in several rows, windows that overlap. Position 0 means no answer.

B batch, T length, N rows, Q questions.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.data.example_store import ExampleStore, one_sided_lengths
from dragoman.data.padding import padded
from dragoman.errors import ConfigError
from dragoman.model.positions.tokens import PAD, Tokens, as_tokens
from dragoman.text.formats.questions import Answer, Question
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import BOS, EOS, INPUT_FRAME, Tokenizer

FRAME = 3
"""Tokens of a row besides question, context and what separates them, and one of the context at least."""


class SpanBatch(NamedTuple):
    """Rows of ids and their answer spans."""

    ids: Int[Tensor, "B T"]
    spans: Int[Tensor, "B 2"]
    """First and last token of the answer; 0 and 0 where the row holds none."""

    def to(self, device: torch.device | str) -> "SpanBatch":
        return SpanBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


def as_fields(ids: Int[Tensor, "B T"]) -> Tokens:
    """Return the model input: the question is field 0, the context field 1, like BERT's two sentences."""
    ends = (ids == EOS).int()
    return as_tokens(ids, PAD)._replace(field=(ends.cumsum(dim=1) - ends).clamp(max=1).long())


def selectable(ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Return True where answers may start and end: in the context, and at position 0."""
    ends = ids == EOS
    inside = (ends.cumsum(dim=1) >= 1) & ~ends & (ids != PAD)
    inside[:, 0] = True
    return inside


# ---- rows -----------------------------------------------------------------------------------------


class ContextWindow(NamedTuple):
    """Part of a context, read with the question."""

    ids: list[int]
    begin: int
    """Index in ``ids`` where the context begins."""
    skipped: int
    """Tokens of the context before this window."""
    offsets: list[tuple[int, int]]
    """Character offsets of each context token: its first character, and the one after its last."""

    def span(self, tokens: range) -> tuple[int, int]:
        """Return the row positions of the first and the last of these context tokens. Return 0 and 0 unless the window
        holds them all: one of several tokens of a character cannot be an answer."""
        if not tokens or tokens[0] < self.skipped or tokens[-1] >= self.skipped + len(self.offsets):
            return 0, 0
        return self.begin + tokens[0] - self.skipped, self.begin + tokens[-1] - self.skipped

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """Return the first character of token ``first`` of the row, and the one after the last character of
        ``last``."""
        return self.offsets[first - self.begin][0], self.offsets[last - self.begin][1]


class ContextLayout(NamedTuple):
    """Sizes of questions and windows."""

    longest: int
    """Tokens of a row."""
    question: int
    """Maximum tokens of a question; longer ones are truncated."""
    stride: int
    """Tokens from one window's beginning to the next."""
    separator: tuple[int, ...] = (EOS,)
    """Tokens between question and context."""

    def check(self) -> "ContextLayout":
        """Return the layout if a question leaves room for its context.

        Raises:
            ConfigError: a question may leave no room for its context.
        """
        least = self.question + FRAME + len(self.separator)
        if self.longest < least:
            raise ConfigError(
                f"data.longest: {self.longest} tokens, and a question alone may have {self.question} "
                f"(data.longest_question): it must be at least {least}"
            )
        return self


def windows(
    question: Sequence[int], context: Sequence[int], offsets: Sequence[tuple[int, int]], layout: ContextLayout
) -> Iterator[ContextWindow]:
    """Yield the rows of a question; one where the context is short enough."""
    head = [BOS, *question[: layout.question], *layout.separator]
    room = layout.longest - len(head) - 1
    step, start = min(layout.stride, room), 0
    while True:
        part = slice(start, start + room)
        yield ContextWindow([*head, *context[part], EOS], len(head), start, list(offsets[part]))
        if start + room >= len(context):
            return
        start += step


def tokens_of(answer: Answer, offsets: Sequence[tuple[int, int]]) -> range:
    """Return the range of context tokens that cover ``answer``."""
    begin, end = answer.start, answer.start + len(answer.text)
    inside = [i for i, (first, after) in enumerate(offsets) if first < end and after > begin]
    return range(inside[0], inside[-1] + 1) if inside else range(0)


Encoded = tuple[list[int], list[tuple[int, int]]]
"""Ids, and the character offsets of each."""


class EncodedQuestions(ExampleStore):
    """Store of questions: a row for each window; a column of ids, and one of the answer's first and last token."""

    def __init__(self, tokenizer: Tokenizer, layout: ContextLayout):
        separator = tokenizer.frame(INPUT_FRAME).between or layout.separator
        if set(separator) != {EOS}:
            raise ConfigError(
                "tokenizer: puts other tokens than the end token between two texts, and question and context are told "
                "apart by that alone"
            )
        self.tokenizer, self.layout = tokenizer, layout._replace(separator=separator).check()

    @property
    def sizes(self) -> dict[str, int | str]:
        return {"text": len(self.tokenizer), "span": "<i4"}

    def windows(self, asked: Sequence[tuple[str, str]]) -> Iterator[list[ContextWindow]]:
        """Yield the windows of each context and question."""
        for question, (ids, offsets) in self._encode(asked):
            yield list(windows(question, ids, offsets, self.layout))

    def _encode(self, asked: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], Encoded]]:
        """Yield the ids of each question, and its encoded context.

        Of a question, an end token that is spelled there is left out: the first one separates it from its context.
        """
        encoded = self.tokenizer.encode_batch([question for _, question in asked])
        questions = [[token for token in ids if token != EOS] for ids in encoded]
        before, read = None, ([], [])
        for (context, _), question in zip(asked, questions, strict=True):
            if context != before:  # questions on the same context are consecutive
                before, read = context, self.tokenizer.encode_with_offsets(context)
            yield question, read

    def columns(self, examples: Sequence[Question]) -> dict[str, list[list[int]]]:
        texts, spans = [], []
        read = self._encode([(example.context, example.question) for example in examples])
        for example, (question, (ids, offsets)) in zip(examples, read, strict=True):
            tokens = tokens_of(example.answers[0], offsets) if example.answers else range(0)
            for window in windows(question, ids, offsets, self.layout):
                texts.append(window.ids)
                spans.append(list(window.span(tokens)))
        return {"text": texts, "span": spans}

    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        return one_sided_lengths(store.columns["text"].lengths)

    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> SpanBatch:
        ids, spans = (padded([store.columns[name][int(i)] for i in rows]) for name in ("text", "span"))
        return SpanBatch(ids, spans)


# ---- the best span --------------------------------------------------------------------------------


class SpanScore(NamedTuple):
    """Best answer of a row."""

    first: int
    last: int
    """Last token of the span; 0 where the row has no context at all."""
    score: float
    """Sum of the start and end logits."""
    none: float
    """Sum of the logits of no answer."""
    probability: float
    """Probability of this start and this end, among all of the row."""


def best_span(logits: Float[Tensor, "T 2"], ids: Int[Tensor, " T"], longest: int) -> SpanScore:
    """Return the span of at most ``longest`` context tokens, its end not before its start, with the largest sum of
    logits."""
    allowed = selectable(ids[None])[0]
    logits = logits.double().masked_fill(~allowed[:, None], -torch.inf)
    none = float(logits[0].sum())
    inside = allowed.nonzero()[1:, 0]
    if not len(inside):
        return SpanScore(0, 0, -np.inf, none, 0.0)
    begin = int(inside[0])
    start, end = logits[inside].unbind(dim=1)
    pairs = (start[:, None] + end[None, :]).masked_fill(~_ordered(len(inside), longest, logits.device), -torch.inf)
    best = int(pairs.argmax())
    first, last = divmod(best, len(inside))
    sure = logits.log_softmax(dim=0)
    probability = (sure[begin + first, 0] + sure[begin + last, 1]).exp()
    return SpanScore(begin + first, begin + last, float(pairs.flatten()[best]), none, float(probability))


def _ordered(tokens: int, longest: int, device: torch.device) -> Bool[Tensor, "T T"]:
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).triu().tril(longest - 1)


class BestAnswer(NamedTuple):
    """Best answer over all windows."""

    text: str
    """Answer text; empty where the context holds no answer."""
    start: int | None
    """First character of the answer in the context; None for no answer."""
    probability: float
    """Probability of its start and end in its window; or of no answer, against the best span."""


def best_answer(
    context: str, found: Sequence[tuple[ContextWindow, SpanScore]], *, null_threshold: float | None
) -> BestAnswer:
    """Return the best answer of all windows.

    It is none where the logits of no answer, the smallest sum over all windows, exceed those of the best span of any
    window by more than ``null_threshold`` (Devlin et al., arXiv:1810.04805, section 4.3). With None there must be one.
    """
    window, best = max(found, key=lambda one: one[1].score)
    none = min(one.none for _, one in found)
    if best.last == 0 or (null_threshold is not None and none - best.score > null_threshold):
        return BestAnswer("", None, float(1 / (1 + np.exp(best.score - none))))
    begin, end = window.characters(best.first, best.last)
    text = context[begin:end]
    return BestAnswer(text.strip(), begin + len(text) - len(text.lstrip()), best.probability)

"""Sentences and the labels of their words as tensors: a word may take several tokens, and its first token has the
label.

B batch, T length, N sentences.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.data.example_store import ExampleStore, one_sided_lengths
from dragoman.data.padding import padded
from dragoman.text.formats.tagged import TaggedText
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import EOS, INPUT_FRAME, Tokenizer

IGNORE = -1
"""Label id where there is no label."""


class TaggedBatch(NamedTuple):
    """Rows of ids and word labels."""

    ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    """Labels at the first token of each word; ``IGNORE`` elsewhere."""

    def to(self, device: torch.device | str) -> "TaggedBatch":
        return TaggedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class SentencePart(NamedTuple):
    """Words of a sentence that are read together: all of them, unless it is too long."""

    ids: list[int]
    """Ids from bos to eos, or as an imported tokenizer frames a text."""
    first: list[int]
    """Index in ``ids`` of each word's first token."""


def parts(tokenizer: Tokenizer, words: Sequence[str], longest: int) -> Iterator[SentencePart]:
    """Yield the parts of a sentence of at most ``longest`` ids. A longer word is truncated; a word that yields no
    tokens is read as eos."""
    frame = tokenizer.frame(INPUT_FRAME)
    ids, first = [*frame.before], []
    for pieces in tokenizer.encode_batch(list(words)):
        pieces = pieces[: longest - len(frame)] or [EOS]
        if len(ids) + len(pieces) + len(frame.after) > longest:
            yield SentencePart([*ids, *frame.after], first)
            ids, first = [*frame.before], []
        first.append(len(ids))
        ids += pieces
    yield SentencePart([*ids, *frame.after], first)


class TaggedExamples(ExampleStore):
    """Store of tagged sentences: a row for each part; a column of ids, and one of labels: 0 for none, else its number
    counted from 1."""

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], longest: int):
        self.tokenizer, self.labels, self.longest = tokenizer, list(labels), longest
        self.index = {label: i for i, label in enumerate(self.labels, 1)}

    @property
    def sizes(self) -> dict[str, int | str]:
        return {"text": len(self.tokenizer), "label": len(self.labels) + 1}

    def columns(self, examples: Sequence[TaggedText]) -> dict[str, list[list[int]]]:
        texts, labels = [], []
        for example in examples:
            left = iter(example.labels)
            for part in parts(self.tokenizer, example.tokens, self.longest):
                row = [0] * len(part.ids)
                for position in part.first:
                    row[position] = self.index[next(left)]
                texts.append(part.ids)
                labels.append(row)
        return {"text": texts, "label": labels}

    def lengths(self, store: Store) -> Int[np.ndarray, "N 2"]:
        return one_sided_lengths(store.columns["text"].lengths)

    def batch(self, store: Store, rows: Int[np.ndarray, " B"]) -> TaggedBatch:
        ids, labels = (padded([store.columns[name][int(i)] for i in rows]) for name in ("text", "label"))
        return TaggedBatch(ids, labels - 1)


# ---- spans ----------------------------------------------------------------------------------------

Span = tuple[str, int, int]
"""Kind of span, its first word and the one after its last."""


def spans(labels: Sequence[str]) -> set[Span]:
    """Return the spans that labels of the kinds B-x (the first word of an x), I-x (a further one) and O (none) mark,
    following conlleval and seqeval: I-x also begins a span where no x comes before it. Labels without a hyphen have no
    kind."""
    found: set[Span] = set()
    kind, begin = None, 0
    for i, label in enumerate([*labels, "O"]):
        mark, _, now = label.partition("-")
        if kind is not None and (mark != "I" or now != kind):
            found.add((kind, begin, i))
            kind = None
        if kind is None and mark in ("B", "I"):
            kind, begin = now, i
    return found


def mark_spans(labels: Sequence[str]) -> bool:
    """Return True if these labels are of the kinds B-x, I-x and O."""
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels) and any(label != "O" for label in labels)

"""Sentences and the labels of their words as tensors: a word is read in pieces, and its label is told at the first.

B batch, T length, N sentences.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dragoman.data.example_store import ExampleStore, one_sided_lengths
from dragoman.data.material import padded
from dragoman.text.formats.tagged import TaggedText
from dragoman.text.store import Store
from dragoman.text.tokens.tokenizer import EOS, INPUT_FRAME, Tokenizer

IGNORE = -1
"""What stands for a label where none is told."""


class TaggedBatch(NamedTuple):
    ids: Int[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    """Of the words whose first piece stands there; ``IGNORE`` elsewhere."""

    def to(self, device: torch.device | str) -> "TaggedBatch":
        return TaggedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class SentencePart(NamedTuple):
    """Words of a sentence that are read together: all of them, unless it is too long."""

    ids: list[int]
    """From bos to eos, or as an imported tokenizer frames a text."""
    first: list[int]
    """Where in ``ids`` each word begins."""


def parts(tokenizer: Tokenizer, words: Sequence[str], longest: int) -> Iterator[SentencePart]:
    """The parts of a sentence of at most ``longest`` ids. A word that is longer alone loses its end; one that the
    tokenizer finds nothing in is read as if it were the end."""
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
    """A row for each part of a sentence; a column of ids, and one of labels: 0 where none is told, else its number
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
"""Its kind, its first word and the one after its last."""


def spans(labels: Sequence[str]) -> set[Span]:
    """What labels of the kinds B-x (the first word of an x), I-x (a further one) and O (of nothing) mark, as conlleval
    and seqeval read them: I-x begins a span too where no x stands before it. Labels without a hyphen are of no kind."""
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
    """Whether these labels are of the kinds B-x, I-x and O."""
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels) and any(label != "O" for label in labels)

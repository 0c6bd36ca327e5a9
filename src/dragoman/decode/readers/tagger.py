"""Tagging: words in, a label for each out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dragoman.capabilities import TAGS
from dragoman.data.tags import SentencePart, parts
from dragoman.decode.arguments import check_items, check_list
from dragoman.decode.readers.input_reader import InputReader, Progress
from dragoman.errors import CheckpointError
from dragoman.model.encoder import Encoder
from dragoman.text.lines import check_surrogates
from dragoman.text.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaggedWords:
    """The words of a sentence with their labels."""

    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    """Most probable label of each word."""
    probabilities: tuple[float, ...]
    """Probabilities of these labels."""


class Tagger(InputReader):
    """A model that labels each word of a sentence."""

    ability = TAGS

    def __init__(self, model: Encoder, tokenizer: Tokenizer | None, config: dict[str, Any]):
        super().__init__(model, tokenizer, config)
        task = config.get("task", {})
        if not task.get("labels") or task.get("kind") != "tagging":
            raise CheckpointError("this run's model was not trained to tag: start one with task: tagging")
        self.labels: tuple[str, ...] = tuple(task["labels"])

    def tag(self, sentences: Sequence[Sequence[str]], progress: Progress | None = None) -> list[TaggedWords]:
        """Return the labels of each sentence's words, one for each word, in their order.

        Raises:
            DataError: half of a surrogate pair; the message names the sentence and the word.
            TypeError: no list of lists of words.
        """
        assert self.tokenizer, "a tagger reads texts"
        given = check_list(sentences, "sentences", what="lists of words")
        sentences = [check_items(words, f"sentences: entry {i}", what="words") for i, words in enumerate(given, 1)]
        for i, words in enumerate(sentences, 1):
            for j, word in enumerate(words, 1):
                check_surrogates(word, f"sentence {i}: word {j}")
        longest = self.material.longest  # pyright: ignore[reportAttributeAccessIssue]
        split = [list(parts(self.tokenizer, words, longest)) for words in sentences]
        rows = [np.array(part.ids) for group in split for part in group]
        answers = iter(self.outputs(rows, progress))
        return [
            self._joined(words, [(part, next(answers)) for part in group])
            for words, group in zip(sentences, split, strict=True)
        ]

    def _joined(self, words: Sequence[str], read: Sequence[tuple[SentencePart, Tensor]]) -> TaggedWords:
        if not words:
            return TaggedWords((), (), ())
        found = torch.cat([logits[part.first] for part, logits in read]).softmax(dim=1)
        best = found.max(dim=1)
        labels = tuple(self.labels[i] for i in best.indices.tolist())
        return TaggedWords(tuple(words), labels, tuple(best.values.tolist()))

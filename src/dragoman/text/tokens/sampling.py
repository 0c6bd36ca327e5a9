"""Random segmentations of words into subwords, for training: BPE-dropout and unigram sampling.

A text has one best segmentation, and a model that only ever sees this one learns little about how words are composed.
Sampling shows it others (Kudo, arXiv:1804.10959; Provilkov et al., arXiv:1910.13267). Both work word by word on the
vocabulary as it was trained: no token is added, and every segmentation spells the same text. Random numbers are an
argument, so the caller decides what a segmentation is a function of.
"""

import json
import math
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import Tokenizer

REMEMBERED = 200_000
"""Words whose segmentations are remembered; further ones are computed each time."""


@runtime_checkable
class WordSampler(Protocol):
    """Sampler of a word's segmentation."""

    def sample(self, word: str, uniform: Iterator[float]) -> list[int] | None:
        """Return the library's ids of a random segmentation of ``word``; None where the word has symbols that are
        not in the vocabulary. ``uniform`` yields numbers from 0 to 1."""
        ...


class SegmentationSampler:
    """Samples a new segmentation of texts that are already tokenized."""

    def __init__(self, tokenizer: Tokenizer, words: WordSampler):
        self.tokenizer, self.words, self.marks = tokenizer, words, frozenset(tokenizer.marks)
        inner = tokenizer.inner
        self._normalize: Callable[[str], str] = inner.normalizer.normalize_str if inner.normalizer else str
        self._pre_tokenize: Callable[[str], list[tuple[str, Any]]] = inner.pre_tokenizer.pre_tokenize_str
        self._known: dict[str, list[int]] = {}

    def resegment(self, ids: Sequence[int], uniform: Iterator[float]) -> list[int]:
        """Return another segmentation of the text of ``ids``. Special tokens stay, and so does a stretch whose ids are
        not those of its text, such as one with added tokens in it."""
        result: list[int] = []
        start = 0
        for at, token in enumerate([*ids, None]):
            if token is None or token in self.marks:
                result += self._resegment_text(ids[start:at], uniform)
                result += [] if token is None else [token]
                start = at + 1
        return result

    def _resegment_text(self, ids: Sequence[int], uniform: Iterator[float]) -> list[int]:
        if not ids:
            return []
        words = [word for word, _ in self._pre_tokenize(self._normalize(self.tokenizer.decode(ids)))]
        best = [self._best(word) for word in words]
        if self.tokenizer.to_our_ids(token for tokens in best for token in tokens) != list(ids):
            return list(ids)
        sampled = (self.words.sample(word, uniform) or known for word, known in zip(words, best, strict=True))
        return self.tokenizer.to_our_ids(token for tokens in sampled for token in tokens)

    def _best(self, word: str) -> list[int]:
        if (found := self._known.get(word)) is None:
            found = [token.id for token in self.tokenizer.inner.model.tokenize(word)]
            if len(self._known) < REMEMBERED:
                self._known[word] = found
        return found


# ---- byte-pair encoding -----------------------------------------------------------------------------


class BpeDropoutWords:
    """BPE-dropout (Provilkov et al., algorithm 1): before each merge, every merge that is possible is left out with
    probability ``rate``, and of the others the one that was learned first is made. It ends when none is left.

    A rate of 0 gives the usual segmentation, and 1 single symbols.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], rate: float):
        self.vocabulary, self.rate = vocabulary, rate
        self.merges = {(vocabulary[a], vocabulary[b]): (rank, vocabulary[a + b]) for rank, (a, b) in enumerate(merges)}

    def sample(self, word: str, uniform: Iterator[float]) -> list[int] | None:
        """Return the ids of a random segmentation; None for symbols without a token."""
        symbols = [self.vocabulary.get(symbol) for symbol in word]
        tokens = [symbol for symbol in symbols if symbol is not None]
        if len(tokens) < len(symbols):
            return None
        while (chosen := self._choose(tokens, uniform)) is not None:
            at, merged = chosen
            tokens[at : at + 2] = [merged]
        return tokens

    def _choose(self, tokens: Sequence[int], uniform: Iterator[float]) -> tuple[int, int] | None:
        """Return the position and the result of the next merge. A merge is drawn for only where it would be chosen,
        which changes no probability: the draws are independent."""
        best, chosen = len(self.merges), None
        for at in range(len(tokens) - 1):
            found = self.merges.get((tokens[at], tokens[at + 1]))
            if found is not None and found[0] < best and next(uniform) >= self.rate:
                best, chosen = found[0], (at, found[1])
        return chosen


# ---- unigram ----------------------------------------------------------------------------------------


Arrivals = list[tuple[list[float], list[tuple[int, int]]]]
"""For each end of a piece: cumulative probabilities, and (begin, id) of the pieces that end there."""


class UnigramWords:
    """Sampling from all segmentations of a word with probability in proportion to P(segmentation)^``alpha`` (Kudo,
    section 3.2 with l infinite), by filtering forward and sampling backward.

    An alpha of 0 makes all segmentations equally likely; a large one gives the best almost always.
    """

    def __init__(self, pieces: Sequence[tuple[str, float]], alpha: float):
        self.alpha = alpha
        self.pieces = {piece: (i, score) for i, (piece, score) in enumerate(pieces) if piece}
        self.longest = max(map(len, self.pieces))
        self._known: dict[str, Arrivals | None] = {}

    def sample(self, word: str, uniform: Iterator[float]) -> list[int] | None:
        """Return the ids of a random segmentation; None where no pieces spell the word."""
        if word in self._known:
            arrivals = self._known[word]
        else:
            arrivals = self._arrivals(word)
            if len(self._known) < REMEMBERED:
                self._known[word] = arrivals
        if arrivals is None:
            return None
        end, tokens = len(word), []
        while end:
            cumulative, pieces = arrivals[end]
            at = bisect(cumulative, next(uniform) * cumulative[-1]) if len(pieces) > 1 else 0
            end, token = pieces[min(at, len(pieces) - 1)]
            tokens.append(token)
        return tokens[::-1]

    def _arrivals(self, word: str) -> Arrivals | None:
        forward = [0.0] + [-math.inf] * len(word)  # log of the summed weights of all segmentations up to here
        arrivals: Arrivals = [([], [])]
        for end in range(1, len(word) + 1):
            found = [
                (begin, token, forward[begin] + self.alpha * score)
                for begin in range(max(0, end - self.longest), end)
                if forward[begin] > -math.inf and (piece := self.pieces.get(word[begin:end])) is not None
                for token, score in [piece]
            ]
            highest = max((weight for *_, weight in found), default=-math.inf)
            cumulative, total = [], 0.0
            for *_, weight in found:
                total += math.exp(weight - highest)
                cumulative.append(total)
            arrivals.append((cumulative, [(begin, token) for begin, token, _ in found]))
            forward[end] = highest + math.log(total) if found else -math.inf
        return arrivals if forward[-1] > -math.inf else None


# ---- which tokenizers can be sampled from -----------------------------------------------------------


def bpe_dropout(tokenizer: Tokenizer, rate: float) -> SegmentationSampler:
    """Return a sampler by BPE-dropout.

    Raises:
        ConfigError: the tokenizer is not of byte-pair encoding, or has marks of word ends in its tokens.
    """
    model = _model(tokenizer, "BPE", "bpe_dropout")
    if not model["merges"]:
        raise ConfigError(_other("bpe_dropout", "one without merges, which has one segmentation of each word"))
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError(_other("bpe_dropout", "one that marks the parts of words, which is not supported"))
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    merges = [(left, right) for left, right in pairs]
    return SegmentationSampler(tokenizer, BpeDropoutWords(model["vocab"], merges, rate))


def unigram_sampling(tokenizer: Tokenizer, alpha: float) -> SegmentationSampler:
    """Return a sampler by the unigram language model.

    Raises:
        ConfigError: the tokenizer is not of the unigram kind.
    """
    model = _model(tokenizer, "Unigram", "unigram_sampling")
    return SegmentationSampler(tokenizer, UnigramWords([(piece, score) for piece, score in model["vocab"]], alpha))


def _model(tokenizer: Tokenizer, kind: str, choice: str) -> dict[str, Any]:
    described = json.loads(tokenizer.inner.to_str())
    if described["model"]["type"] != kind:
        raise ConfigError(_other(choice, described["model"]["type"]))
    if described["pre_tokenizer"] is None:
        raise ConfigError(_other(choice, "one that does not divide texts into words, which is not supported"))
    return described["model"]


def _other(choice: str, found: str) -> str:
    wanted = {"bpe_dropout": "bpe", "unigram_sampling": "unigram"}[choice]
    return f"kind: {choice} needs a tokenizer of kind {wanted}, and this is {found}"

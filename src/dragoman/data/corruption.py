"""Corruption of texts for self-supervised training: parts are hidden, and the model predicts them.

Each corruption is a config class with ``corrupt``, a function of a text's ids and a stream of random numbers alone.

N ids of a text, S and T of what is read and what is to be generated.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat

from dragoman.config import Fraction, OneOf, config
from dragoman.data.packing import IGNORE
from dragoman.text.tokens.tokenizer import EOS, Tokenizer

IdArray = Int[np.ndarray, "_"]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]

MASK = ("⟨mask⟩", "[MASK]", "<mask>")
"""Names that tokenizers have for the mask token; the first is ours."""
SENTENCE_ENDS = (b".", b"!", b"?")


def gap(number: int) -> tuple[str, str]:
    """Return the names of the sentinel of gap ``number``: ours, and T5's."""
    return f"⟨gap {number}⟩", f"<extra_id_{number}>"


class RandomDraw:
    """Random numbers as a function of ``seed``, the same in every version of numpy."""

    def __init__(self, seed: Sequence[int]):
        self.raw = np.random.PCG64(list(seed)).random_raw  # numpy promises that this stream stays what it is

    def uniform(self, count: int) -> Float[np.ndarray, "_"]:
        """Return ``count`` numbers from 0 to 1, 1 excluded."""
        return (self.raw(count) >> np.uint64(11)) * 2.0**-53

    def order(self, count: int) -> IdArray:
        """Return a random permutation of 0 to ``count`` - 1."""
        return np.argsort(self.raw(count), kind="stable")

    def parts(self, total: int, count: int, least: int) -> IdArray:
        """Return ``count`` numbers of at least ``least`` (0 or 1) with sum ``total``; every such sequence is equally
        likely."""
        room = total + (1 - least) * count  # shifts zeros and ones to ones and twos
        cuts = np.sort(self.order(room - 1)[: count - 1]) + 1
        return np.diff(np.concatenate([[0], cuts, [room]])) - (1 - least)


# ---- words behind masks, for encoders ---------------------------------------------------------------


@config
class Masking:
    """BERT's masking: most of the chosen tokens become a mask, some another token, and some stay (Devlin et al.,
    arXiv:1810.04805, section 3.1)."""

    share: OpenFraction = 0.15
    """Fraction of the tokens that are predicted."""
    masked: Fraction = 0.8
    """Fraction of the predicted tokens that become a mask."""
    exchanged: Fraction = 0.1
    """Fraction of the predicted tokens that become any other token; the rest stays as it is."""

    def corrupt(self, ids: IdArray, draw: RandomDraw, vocabulary: "CorruptionVocabulary") -> tuple[IdArray, IdArray]:
        """Return the input, and the targets: ``IGNORE`` where nothing is predicted."""
        words = np.flatnonzero(vocabulary.is_text[ids])
        chosen = words[draw.order(len(words))[: max(1, round(self.share * len(words)))]]
        read, targets = ids.copy(), np.full_like(ids, IGNORE)
        targets[chosen] = ids[chosen]
        fate, other = draw.uniform(len(chosen)), draw.uniform(len(chosen))
        read[chosen[fate < self.masked]] = vocabulary.mask
        exchanged = (fate >= self.masked) & (fate < self.masked + self.exchanged)
        read[chosen[exchanged]] = vocabulary.text[(other[exchanged] * len(vocabulary.text)).astype(int)]
        return read, targets


# ---- spans, for models that read and write ----------------------------------------------------------


@config
class SpanCorruption:
    """T5's span corruption: each hidden span becomes a sentinel token, and the spans are generated, each after its
    sentinel (Raffel et al., arXiv:1910.10683, section 3.1.4). As in their code, no sentinel follows the last span;
    unlike there, the last span need not end the text."""

    share: OpenFraction = 0.15
    """Fraction of the tokens that are hidden."""
    span: Annotated[float, Field(ge=1)] = 3.0
    """Mean length of a hidden span in tokens."""

    def gaps(self, longest: int) -> int:
        """Return the maximum number of gaps in a text of up to ``longest`` tokens."""
        return self._spans(longest)[1]

    def lengths(self, n: IdArray) -> tuple[IdArray, IdArray]:
        """Return the lengths of the input and the target, eos included, for texts of ``n`` tokens."""
        hidden, spans = np.array([self._spans(int(one)) for one in n], int).reshape(-1, 2).T
        return n - hidden + spans + 1, hidden + spans + 1

    def _spans(self, n: int) -> tuple[int, int]:
        """Return the number of hidden tokens and of spans. A text of one token is hidden completely."""
        hidden = min(max(round(n * self.share), 1), max(n - 1, 1))
        return hidden, min(max(round(hidden / self.span), 1), max(n - hidden, 1))

    def corrupt(self, ids: IdArray, draw: RandomDraw, vocabulary: "CorruptionVocabulary") -> tuple[IdArray, IdArray]:
        """Return input and target, both without eos."""
        hidden, spans = self._spans(len(ids))
        gone, seen = draw.parts(hidden, spans, least=1), draw.parts(len(ids) - hidden + 2, spans + 1, least=1)
        seen[[0, -1]] -= 1  # no token is required before the first span or after the last
        at = int(seen[0])
        read, written = [ids[:at]], []
        for mark, lost, kept in zip(vocabulary.gaps[:spans], gone, seen[1:], strict=True):
            read += [[mark], ids[at + lost : at + lost + kept]]
            written += [[mark], ids[at : at + lost]]
            at += int(lost + kept)
        return np.concatenate(read).astype(np.int64), np.concatenate(written).astype(np.int64)


@config
class TextInfilling:
    """BART's text infilling: each hidden span, of any length including 0, becomes one mask, sentences are permuted, and
    the whole text is generated (Lewis et al., arXiv:1910.13461, section 2.2)."""

    share: OpenFraction = 0.3
    """Fraction of the tokens that are hidden."""
    span: PositiveFloat = 3.0
    """Mean number of tokens in a span, which is Poisson distributed."""
    permute: bool = True
    """Permute the sentences."""

    def lengths(self, n: IdArray) -> tuple[IdArray, IdArray]:
        """Return the lengths of the input, on average, and of the target, eos included, for texts of ``n`` tokens."""
        hidden = (self.share * n).astype(int)
        return n - hidden + np.ceil(hidden / self.span).astype(int) + 1, n + 1

    def corrupt(self, ids: IdArray, draw: RandomDraw, vocabulary: "CorruptionVocabulary") -> tuple[IdArray, IdArray]:
        """Return input and target, both without eos."""
        read = self._permuted(ids, draw, vocabulary) if self.permute else ids
        gone = self._spans(round(self.share * len(ids)), draw)
        if not len(gone):
            return read, ids
        kept = draw.parts(len(ids) - int(gone.sum()), len(gone) + 1, least=0)
        parts, at = [read[: kept[0]]], int(kept[0])
        for lost, seen in zip(gone, kept[1:], strict=True):
            parts += [[vocabulary.mask], read[at + lost : at + lost + seen]]
            at += int(lost + seen)
        return np.concatenate(parts).astype(np.int64), ids

    def _spans(self, hidden: int, draw: RandomDraw) -> IdArray:
        """Return random span lengths that sum to ``hidden``, the last one truncated to fit."""
        lengths = poisson(self.span, draw.uniform(8 + int(4 * hidden / self.span)))
        ends = np.cumsum(lengths)
        last = int(np.searchsorted(ends, hidden))
        if hidden == 0 or last == len(ends):
            return np.array([hidden] * (hidden > 0), int)
        lengths[last] -= ends[last] - hidden
        return lengths[: last + 1]

    def _permuted(self, ids: IdArray, draw: RandomDraw, vocabulary: "CorruptionVocabulary") -> IdArray:
        sentences = np.split(ids, np.flatnonzero(vocabulary.ends_sentence[ids[:-1]]) + 1)
        return np.concatenate([sentences[i] for i in draw.order(len(sentences))])


Corruption = Annotated[SpanCorruption | TextInfilling, OneOf()]


def poisson(mean: float, uniform: Float[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
    """Return Poisson-distributed numbers, by inversion of ``uniform`` ones."""
    counts = np.arange(int(10 + 10 * mean))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    probability = np.exp(counts * np.log(mean) - mean - log_factorial)
    return np.searchsorted(np.cumsum(probability), uniform, side="right")


# ---- special tokens --------------------------------------------------------------------


class CorruptionVocabulary:
    """Tokens that a corruption needs from a tokenizer.

    Raises:
        ConfigError: the tokenizer lacks a special token that the corruption needs.
    """

    def __init__(self, tokenizer: Tokenizer, corruption: Masking | Corruption, longest: int):
        self.is_text = np.ones(len(tokenizer), bool)
        self.is_text[list(tokenizer.marks)] = False
        self.text = np.flatnonzero(self.is_text)
        self.ends_sentence = np.zeros(len(tokenizer), bool)
        if isinstance(corruption, SpanCorruption):
            self.gaps = np.array([tokenizer.mark(*gap(i)) for i in range(corruption.gaps(longest))])
            return
        self.mask = tokenizer.mark(*MASK)
        if isinstance(corruption, TextInfilling) and corruption.permute:
            self.ends_sentence = np.array([piece.rstrip().endswith(SENTENCE_ENDS) for piece in tokenizer.spellings])


def marks(corruption: Masking | Corruption, longest: int) -> list[str]:
    """Return the special tokens a tokenizer must have, by our names, for texts of up to ``longest`` tokens."""
    if isinstance(corruption, SpanCorruption):
        return [gap(i)[0] for i in range(corruption.gaps(longest))]
    return [MASK[0]]


def corrupt_texts(
    texts: Iterable[IdArray], draws: Iterable[RandomDraw], corruption: Corruption, vocabulary: CorruptionVocabulary
) -> tuple[list[IdArray], list[IdArray]]:
    """Return inputs and targets of the texts, both ending with eos; each text has its own random numbers."""
    read, written = [], []
    for ids, draw in zip(texts, draws, strict=True):
        text = ids[vocabulary.is_text[ids]]
        seen, gone = corruption.corrupt(text, draw, vocabulary) if len(text) else (text, text)
        read.append(np.append(seen, EOS))
        written.append(np.append(gone, EOS))
    return read, written

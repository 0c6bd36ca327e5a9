"""Word alignment: which source word each word of a translation comes from, read from the decoder's cross-attention.

Some cross-attention heads attend to the word that is being translated, others elsewhere. The aligning heads are
selected once for a run, on words that both sides of a pair have in common (names, numbers), or on alignments made by
hand; see ``learn``.

B sentences of a batch, H heads of a layer, S source tokens, T target tokens, W source words, U target words, n heads.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dragoman.config import config
from dragoman.data.padding import padded
from dragoman.decode.search.attention_taps import attention_taps, recording_attention, twin_of
from dragoman.decode.search.teacher_forcing import batches_by_length, shifted
from dragoman.errors import ConfigError
from dragoman.model.interface import SequenceModel
from dragoman.text.context import SEPARATOR
from dragoman.text.lines import MATCH
from dragoman.text.tokens.tokenizer import Tokenizer

Links = tuple[tuple[int, int], ...]
"""Pairs (word of the source, word of the translation), counted from 0, ordered by the latter; words are separated by
spaces."""


IdPair = tuple[Sequence[int], Sequence[int]]
"""Source and target ids of a pair, each with EOS."""


@config
class AlignmentHeads:
    """The attention heads that align words. Without any, all heads of the last two layers are used."""

    heads: tuple[tuple[int, int], ...] = ()
    """Pairs (layer, head), counted from 0."""

    def of(self, weights: Sequence[Float[Tensor, "B H T S"]]) -> list[Float[Tensor, "B T S"]]:
        """Return the weights of the chosen heads, from the weights of all layers."""
        chosen = self.heads or [
            (len(weights) - i, h) for i in (2, 1) if i <= len(weights) for h in range(weights[-i].shape[1])
        ]
        return [weights[layer][:, head] for layer, head in chosen]


class Aligner:
    """Word alignment with one model."""

    def __init__(
        self,
        model: SequenceModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        heads: AlignmentHeads | None = None,
        *,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ):
        """
        Args:
            turn: held while the model computes.
        """
        self.turn = turn
        self.model, self.heads = model, heads or AlignmentHeads()
        self.source_tokenizer, self.target_tokenizer = source_tokenizer, target_tokenizer
        self.separators = [
            found for names in (SEPARATOR, MATCH) if (found := source_tokenizer.find_mark(*names)) is not None
        ]
        if not attention_taps(model):
            raise ConfigError("this model does not attend to a source: there is nothing to align by")

    def align(self, pairs: Sequence[IdPair], batch_tokens: int = 4096) -> list[Links]:
        """Return the links of each pair of source and target ids, both with their EOS."""
        found: list[Links] = [()] * len(pairs)
        for rows, weights in self.attention(pairs, batch_tokens):
            mean = torch.stack(self.heads.of(weights)).mean(dim=0).float().cpu().numpy()
            for row, attention in zip(rows, mean, strict=True):
                found[row] = links(self.by_words(pairs[row], attention[None])[0])
        return found

    def attention(self, pairs: Sequence[IdPair], batch_tokens: int) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Yield batches: row indices, and each layer's cross-attention weights (B, H, T, S) under teacher forcing."""
        twin, lock = twin_of(self.model)
        assert isinstance(twin, SequenceModel)
        for rows in batches_by_length([len(s) + len(t) for s, t in pairs], batch_tokens):
            source, target = (padded([pairs[row][side] for row in rows], self.model.device) for side in (0, 1))
            weights: list[Tensor] = []
            recording = recording_attention(attention_taps(twin), weights)
            with self.turn(), lock, twin.without_dropout(), torch.inference_mode(), recording:
                twin.hidden(shifted(target), source)
            yield rows, weights

    def by_words(self, pair: IdPair, attention: Float[np.ndarray, "n T S"]) -> Float[np.ndarray, "n U W"]:
        """Sum the attention of the tokens of each target word to those of each source word."""
        own = self.own(pair[0])
        source = _membership([*[-1] * own, *_words(self.source_tokenizer, pair[0][own:])])
        target = _membership(_words(self.target_tokenizer, pair[1]))
        return target @ attention[:, : target.shape[1], : source.shape[1]] @ source.T

    def own(self, source: Sequence[int]) -> int:
        """Return the index at which the text itself begins, after its context."""
        return next((i for i in range(len(source), 0, -1) if source[i - 1] in self.separators), 0)


def links(attention: Float[np.ndarray, "U W"]) -> Links:
    """Link each target word to the source word with the most attention."""
    return tuple((int(row.argmax()), word) for word, row in enumerate(attention)) if attention.size else ()


def _membership(words: Sequence[int]) -> Float[np.ndarray, "W S"]:
    """Return a matrix with 1 where a token belongs to a word."""
    return (np.arange(max(words, default=-1) + 1)[:, None] == np.array(words)[None]).astype(np.float32)


def _words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Return the word index of each token; -1 for a space or a special token."""
    numbers, word, inside = [], -1, False
    for token in ids:
        mine = -1
        for byte in tokenizer.spelling(token):
            if byte <= 0x20:
                inside = False
                continue
            word, inside = word + (not inside), True
            mine = word if mine < 0 else mine
        numbers.append(mine)
    return numbers


# ---- which heads -----------------------------------------------------------------------------------


def anchors(source: str, target: str) -> Links:
    """Return links between words that occur once on both sides: names, numbers, codes."""
    sides = source.split(), target.split()
    once = [{word: i for i, word in enumerate(side) if side.count(word) == 1} for side in sides]
    return tuple((once[0][word], i) for word, i in once[1].items() if word in once[0])


def error_rate(found: Iterable[Links], gold: Iterable[Links]) -> float:
    """Return the alignment error rate (Och & Ney 2003, section 5) over the target words that ``gold`` has links for."""
    wrong = total = 0
    for made_links, right in zip(found, gold, strict=True):
        linked = {word for _, word in right}
        made = {link for link in made_links if link[1] in linked}
        wrong += len(made) + len(right) - 2 * len(made & set(right))
        total += len(made) + len(right)
    return wrong / max(1, total)


def learn(aligner: Aligner, pairs: Sequence[IdPair], gold: Sequence[Links]) -> tuple[AlignmentHeads, float]:
    """Return the heads whose mean has the lowest error rate on ``gold``, and that rate.

    The search starts from the heads of the best layer. It removes or adds one head at a time, as long as that helps.
    """
    by_head: list[tuple[int, Float[np.ndarray, "n U W"]]] = []
    shape: list[int] = []
    for rows, weights in aligner.attention(pairs, 4096):
        shape = [layer.shape[1] for layer in weights]
        for row, attention in zip(rows, torch.cat(weights, dim=1).float().cpu().numpy(), strict=True):
            by_head.append((row, aligner.by_words(pairs[row], attention)))
    known = [(layer, head) for layer, heads in enumerate(shape) for head in range(heads)]

    def rate(chosen: frozenset[int]) -> float:
        found = [links(attention[sorted(chosen)].mean(axis=0)) for _, attention in by_head]
        return error_rate(found, [gold[row] for row, _ in by_head])

    layers = [frozenset(i for i, (layer, _) in enumerate(known) if layer == one) for one in range(len(shape))]
    best, chosen = min(((rate(heads), heads) for heads in layers), key=lambda found: found[0])
    while True:
        others = [chosen ^ {i} for i in range(len(known)) if chosen != {i}]
        lower, heads = min(((rate(each), each) for each in others), key=lambda found: found[0], default=(best, chosen))
        if lower >= best:
            return AlignmentHeads(heads=tuple(known[i] for i in sorted(chosen))), best
        best, chosen = lower, heads

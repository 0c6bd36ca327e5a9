"""Scoring: log-probabilities of given translations, and perplexities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dragoman.decode.constraints.first_token import FirstToken
from dragoman.decode.search.strategy import not_numbers
from dragoman.decode.search.teacher_forcing import token_log_probs
from dragoman.errors import DataError
from dragoman.model.interface import SequenceModel
from dragoman.text.cleaning.clean import normalise
from dragoman.text.corpus import source_rows
from dragoman.text.lines import Pair, Sourced
from dragoman.text.tokens.tokenizer import EOS, Tokenizer


@dataclass(frozen=True)
class ScoredPair:
    """A pair with the log-probability of its target."""

    row: int
    """Row number of the pair, counted from 1."""
    source: str
    target: str
    log_prob: float
    """Natural logarithm of the probability of the target, its end included, in the tokenizer's tokens."""
    tokens: tuple[int, ...]
    """Ids of the target; the last is EOS."""
    token_log_probs: tuple[float, ...]

    @property
    def perplexity(self) -> float:
        """Perplexity per token: the inverse of the geometric mean of the tokens' probabilities."""
        return _perplexity(self.log_prob, len(self.tokens))


def perplexity(scored: Sequence[ScoredPair]) -> float:
    """Return the perplexity per token over all pairs."""
    return _perplexity(math.fsum(pair.log_prob for pair in scored), sum(len(pair.tokens) for pair in scored))


def score_pairs(
    model: SequenceModel,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    pairs: Sequence[Pair | Sourced],
    first: FirstToken | None = None,
    **options,
) -> list[ScoredPair]:
    """Score pairs as ``Translator.score`` describes; every target is read after ``first``."""
    tidy = [pair._replace(source=normalise(pair.source)) for pair in pairs]
    sources = source_rows(source_tokenizer, tidy, model.max_length)
    targets = _ids(target_tokenizer, [pair.target for pair in pairs])
    _check_lengths("source", sources, model.max_length)
    answers = targets if first is None else [first.before(ids, len(target_tokenizer)) for ids in targets]
    _check_lengths("target", answers, model.max_length)
    found = token_log_probs(model, sources, answers, **options)
    log_probs = [values[-len(ids) :] for values, ids in zip(found, targets, strict=True)]
    if not all(math.isfinite(value) for values in log_probs for value in values):
        raise not_numbers()
    return [
        ScoredPair(row, pair.source, pair.target, sum(values), tuple(ids), values)
        for row, (pair, ids, values) in enumerate(zip(pairs, targets, log_probs, strict=True), 1)
    ]


def _check_lengths(side: str, rows: list[list[int]], longest: int | None) -> None:
    for number, row in enumerate(rows, 1):
        if longest is not None and len(row) > longest:
            raise DataError(
                f"row {number}: the {side} has {len(row)} tokens and the model takes {longest}: split the pair"
            )


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [[*ids, EOS] for ids in tokenizer.encode_batch([normalise(text) for text in texts])]


def _perplexity(log_prob: float, tokens: int) -> float:
    mean = -log_prob / max(1, tokens)
    return math.exp(mean) if mean < 700 else math.inf

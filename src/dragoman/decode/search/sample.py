"""Sampling: each next token drawn from the model's distribution, or from the likelier part of it.

The distribution is shaped in this order: rules (``rule.py``), temperature, top-k, top-p, min-p, typical; each step gets
the result of the one before. A sample is a function of the model, the source, the seed and its index among the samples
of that source. Batch, order and padding do not change it: a text has the same samples in every position of every file.

B sentences of a batch, N of them still being translated, n samples of each, R = N x n rows (N at the first step),
V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.emitted import Emitted, EmittedTokens, outcomes
from dragoman.decode.search.ranking import first_largest, log_partition
from dragoman.decode.search.rng import draw, key
from dragoman.decode.search.strategy import Choice, EmittedToken, Hypothesis, LengthLimit, Outcome, Strategy, all_found
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS

Probability = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""A number of 64 bits."""
_COLDEST = 1e-20
"""Temperature below which logits divided by it exceed float32; nothing but the most probable token is left there."""
SamplingTemperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]

# ---- shaping: logits in, logits out, minus infinity for what must not be drawn --------------------------


def apply_temperature(logits: Float[Tensor, "R V"], temperature: float) -> Float[Tensor, "R V"]:
    """Divide the logits: above 1 the distribution gets flatter, below 1 sharper (Ackley et al. 1985)."""
    return logits / temperature


def keep_likeliest(logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
    """Keep only the most probable token, the lower id of equals, as ``Greedy`` does: the limit of temperature 0."""
    best = first_largest(logits)[:, None]
    return torch.full_like(logits, -torch.inf).scatter(1, best, logits.gather(1, best))


def keep_top_k(logits: Float[Tensor, "R V"], count: int) -> Float[Tensor, "R V"]:
    """Keep the ``count`` most probable tokens, and those that tie with the last of them (Fan et al. 2018)."""
    least = logits.topk(min(count, logits.shape[1]), dim=1).values[:, -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Float[Tensor, "R V"], mass: float) -> Float[Tensor, "R V"]:
    """Keep the fewest tokens that together have the probability ``mass``: the nucleus (Holtzman et al. 2020)."""
    return _fewest(logits, logits, logits.softmax(dim=1), mass)


def keep_min_p(logits: Float[Tensor, "R V"], ratio: float) -> Float[Tensor, "R V"]:
    """Keep tokens at least ``ratio`` times as probable as the most probable one (Nguyen et al. 2024)."""
    p = logits.softmax(dim=1)
    return logits.masked_fill(p < ratio * p.amax(dim=1, keepdim=True), -torch.inf)


def keep_typical(logits: Float[Tensor, "R V"], mass: float) -> Float[Tensor, "R V"]:
    """Keep tokens whose nll is closest to the entropy, until together they have the probability ``mass``.

    Locally typical sampling (Meister et al. 2023).
    """
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    entropy = -(p * log_p).nansum(dim=1, keepdim=True)
    return _fewest(logits, -(log_p + entropy).abs(), p, mass)


def _fewest(logits: Tensor, rank: Tensor, p: Tensor, mass: float) -> Float[Tensor, "R V"]:
    """Keep the fewest tokens by descending ``rank`` whose probabilities add up to ``mass``; of equals the first."""
    order = rank.argsort(dim=1, descending=True, stable=True)
    sorted_p = p.gather(1, order)
    over = sorted_p.cumsum(dim=1) - sorted_p >= mass  # the tokens before it already have the mass
    over[:, 0] = False
    return logits.masked_fill(torch.zeros_like(over).scatter(1, order, over), -torch.inf)


# ---- the choice ------------------------------------------------------------------------------------


@config
class Sample:
    """Draw translations at random. Those of one source are returned best first, by mean log-probability of a token.

    The log-probabilities are the model's own, before any shaping.
    """

    temperature: SamplingTemperature = 1.0
    """Logits are divided by it: below 1 frequent choices gain, above 1 rare ones; 0 always takes the most probable
    token, as greedy search does."""
    top_k: PositiveInt | None = None
    """Draw from this many of the most probable tokens."""
    top_p: Probability | None = None
    """Draw from the fewest tokens that together have this probability."""
    min_p: Probability | None = None
    """Draw from tokens at least this many times as probable as the most probable one."""
    typical: Probability | None = None
    """Draw from the tokens of nearly average nll that together have this probability."""
    samples: PositiveInt = 1
    """Number of samples for each source."""
    seed: Seed = 0
    """Seed of the random numbers: another one gives other samples."""
    limit: LengthLimit = LengthLimit()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:  # also excludes NaN, for which every comparison is false
            raise ConfigError(f"temperature: a number from 0 (greedy) up is expected, got {self.temperature}")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"seed: a whole number of 64 bits is expected, got {self.seed}")
        for name in ("top_p", "min_p", "typical"):
            probability = getattr(self, name)
            if probability is not None and not 0 < probability <= 1:
                raise ConfigError(f"{name}: a number above 0 and up to 1 is expected, got {probability}")
        for name in ("top_k", "samples"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name}: a whole number from 1 up is expected, got {count}")

    @property
    def size(self) -> int:
        return self.samples

    @property
    def nbest(self) -> int:
        return self.samples

    @property
    def draws(self) -> bool:
        """True where its choices are random, and so depend on seeds."""
        return self.temperature > 0

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / length

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "SampleStrategy":
        return SampleStrategy(self, limits, device, seeds if self.draws else [0] * len(limits))

    def shape(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        """Return the logits to draw by."""
        if self.temperature < _COLDEST:
            return keep_likeliest(logits.float())
        logits = apply_temperature(logits.float(), self.temperature)
        if self.top_k is not None:
            logits = keep_top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = keep_top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = keep_min_p(logits, self.min_p)
        return logits if self.typical is None else keep_typical(logits, self.typical)


_OF_SENTENCES = ("sentence", "keys", "limit", "first", "row", "over")
"""Names of the attributes that hold a row for each sentence still being translated."""


class SampleStrategy(Strategy):
    """Sampling of one batch: n rows a sentence, each with a key that its random numbers derive from."""

    def __init__(self, cfg: Sample, limits: Sequence[int], device: torch.device, seeds: Sequence[int]):
        self.cfg, self.beams, self.sentences, self.steps = cfg, cfg.samples, len(limits), 0
        keys = [[key(cfg.seed, seed, i) for i in range(cfg.samples)] for seed in seeds]
        self.keys = torch.tensor(keys, device=device)  # (N, n)
        self.limit = torch.tensor(limits, device=device)[:, None]  # (N, 1): tokens at which a sentence is ended
        self.first = torch.zeros_like(self.limit)  # (N, 1): steps of the batch before a sentence's first
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its index in the batch
        self.row = torch.arange(self.keys.numel(), device=device).view_as(self.keys)  # (N, n)
        self.over = torch.zeros_like(self.keys, dtype=torch.bool)  # (N, n)
        self.emitted = EmittedTokens(self.row.numel())

    def step(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None = None
    ) -> Choice | None:
        wanted = self.guess(ranked, 0).view_as(self.keys)
        self.steps += 1
        at_limit = (self.limit <= self.steps - self.first).expand_as(wanted)
        token = wanted.masked_fill(self.over if self.open_ended else self.over | at_limit, EOS)
        log_prob = _of_tokens(logits, token).float() - log_partition(logits).view(len(token), -1)
        if ranked is not logits:
            log_prob = log_prob.masked_fill(_of_tokens(ranked, wanted) == -torch.inf, -torch.inf)  # none is allowed
        real = ~self.over if complete is None else ~(self.over | complete.view_as(self.over))
        self.emitted.append(Emitted(self.row, token, log_prob, at_limit & ~self.is_end(wanted), real))

        self.over = self.over | self.is_end(token) | at_limit
        done = self.over.all(dim=1)
        left = int((~done).sum())  # the one wait for the device
        if left == 0:
            self.sentence, self.row = self.sentence[:0], self.row[:0]
            return None
        if left == len(done):
            return Choice(None, None, token.flatten())
        keep = done.int().argsort(stable=True)[:left]
        for name in _OF_SENTENCES:
            setattr(self, name, getattr(self, name)[keep])
        return Choice(keep, None, token[keep].flatten())

    def guess(self, logits: Float[Tensor, "R V"], ahead: int) -> Int[Tensor, " _"]:
        shaped = self.cfg.shape(logits[:, EOS:])  # padding and begin-of-sentence lie below EOS
        shaped = shaped.repeat_interleave(self.keys.numel() // len(shaped), dim=0)
        emitted = (self.steps - self.first).expand_as(self.keys).flatten()
        return draw(shaped, self.keys.flatten(), emitted + ahead) + EOS

    def join(self, other: Strategy) -> None:
        assert isinstance(other, SampleStrategy)
        rows = self.sentences * self.beams
        other.sentence, other.row = other.sentence + self.sentences, other.row + rows
        other.first = other.first + self.steps - other.steps
        for name in _OF_SENTENCES:
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))
        self.emitted.join(other.emitted, rows)
        self.sentences += other.sentences

    def end_early(self, sentences: Sequence[int]) -> None:
        ending = torch.isin(self.sentence, torch.tensor(list(sentences), device=self.row.device))
        self.limit = self.limit.masked_fill(ending[:, None], 0)

    def newest(self, rows: int) -> list[EmittedToken]:
        return self.emitted.newest_tokens(rows)

    def take_finished(self) -> dict[int, Outcome]:
        found = outcomes(self.emitted.take_all_but(self.row), self.cfg.score, self.beams)
        return {row // self.beams: outcome for row, outcome in found}

    def results(self) -> list[list[Hypothesis]]:
        return all_found(outcome for _, outcome in outcomes(self.emitted.entries, self.cfg.score, self.beams))


def _of_tokens(logits: Float[Tensor, "R V"], token: Int[Tensor, "N n"]) -> Float[Tensor, "N n"]:
    """Return the logit of each row's token; at the first step the n rows of a sentence share its logits."""
    return logits.unflatten(0, (len(token), -1)).expand(*token.shape, -1).gather(2, token[:, :, None])[:, :, 0]

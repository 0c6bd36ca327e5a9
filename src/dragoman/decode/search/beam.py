"""Beam search: the K best beginnings of each sentence, one token longer at each step.

N sentences still being translated, W hypotheses of each (1 at the first step, then G x K), R = N x W rows, G groups of
K hypotheses (one of them in plain beam search), C candidates of a group, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.decode.search.backpointers import Backpointers, ContinuedRows, EndedHypotheses
from dragoman.decode.search.ranking import Best, best, best_continuations, first_largest, log_partition
from dragoman.decode.search.strategy import Choice, Hypothesis, LengthLimit, Strategy
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS

# ---- length penalties: score = log-probability / divisor(tokens, the end included) -----------------


@config
class NoPenalty:
    """Plain log-probability. It favours short translations, the more so the larger the beam."""

    def divisor(self, length: int) -> float:
        return 1.0


@config
class Gnmt:
    """((5 + length) / 6) ^ alpha (Wu et al. 2016, equation 14)."""

    alpha: float = 0.6

    def __post_init__(self) -> None:
        _not_negative(self.alpha)

    def divisor(self, length: int) -> float:
        return ((5 + length) / 6) ** self.alpha


@config
class Average:
    """length ^ alpha; with 1, the mean log-probability of a token."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        _not_negative(self.alpha)

    def divisor(self, length: int) -> float:
        return length**self.alpha


LengthPenalty = Annotated[NoPenalty | Gnmt | Average, OneOf()]


def _not_negative(alpha: float) -> None:
    if alpha < 0:
        raise ConfigError(f"a length penalty's alpha must not be negative, got {alpha}")


# ---- when a sentence is done -----------------------------------------------------------------------

StopRule = Literal["first", "full", "certain"]

_STOPS: dict[StopRule, Callable[["BeamStrategy"], Bool[Tensor, " N"]]] = {
    "first": lambda search: search.best[:, -1] >= search.ahead(),
    "full": lambda search: (search.best[:, -1] >= search.ahead()) & (search.finished >= search.beams),
    "certain": lambda search: search.best[:, -1] >= search.within_reach(),
}


@config
class Beam:
    """Keep the ``size`` best beginnings; whatever ends while among the ``size`` best of a step is a translation."""

    size: int = 5
    penalty: LengthPenalty = Average()
    """How finished translations of different lengths are compared."""
    stop: StopRule = "full"
    """When a sentence is done. ``first``: once the ``nbest`` best of those finished score no less than its best
    beginning does so far. ``full``: once, besides, ``size`` translations are finished; longer ones so get a chance.
    ``certain``: once no beginning can reach the ``nbest`` best any more, which may take up to the length limit."""
    nbest: int = 1
    """Translations returned for each source."""
    limit: LengthLimit = LengthLimit()

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.size:
            raise ConfigError(f"a beam of {self.size} cannot return the {self.nbest} best: 1 <= nbest <= size")

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / self.penalty.divisor(length)

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BeamStrategy":
        return BeamStrategy(self, limits, device)


# ---- the search -----------------------------------------------------------------------------------

_OF_SENTENCES = ("sentence", "limit", "length", "total", "finished", "best")
"""What a strategy holds of each sentence under way."""


class BeamStrategy(Strategy):
    """The beam in G groups of K, each of which goes on with its own best: one group here, more for who overrides
    ``propose`` and decides what belongs to which."""

    def __init__(self, cfg: Beam, limits: Sequence[int], device: torch.device, *, groups: int = 1, each: int = 0):
        self.cfg, self.sentences, self.groups, self.each = cfg, len(limits), groups, each or cfg.size
        self.beams = groups * self.each
        self.steps, self.earliest = 0, min(limits)
        self.limit = torch.tensor(limits, device=device)  # (N,): tokens at which it is ended
        self.length = torch.zeros_like(self.limit)  # (N,): tokens said
        self.divisors = torch.tensor([cfg.penalty.divisor(n) for n in range(max(limits) + 1)], device=device)
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its place in the batch
        self.total = torch.zeros(len(limits), 1, device=device)  # (N, W): log-probability of each beginning
        self.finished = torch.zeros_like(self.limit)  # (N,): translations that have ended
        self.best = torch.full((len(limits), cfg.nbest), -torch.inf, device=device)  # (N, nbest): their best scores
        self.trail = Backpointers(len(limits))

    def step(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Choice | None:
        self.steps, self.length = self.steps + 1, self.length + 1
        N, W = self.total.shape
        found = self.propose(logits, ranked)
        cut = torch.zeros_like(found.token, dtype=torch.bool)
        if self.steps >= self.earliest:
            found, cut = self.truncate(found, logits, ranked)
        parent = found.beam + W * torch.arange(N, device=found.beam.device)[:, None, None]
        ends = found.token == EOS
        self.end(found, ends, parent, cut)
        return self.go_on(found, ends, parent)

    def propose(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Best:
        """The 2K best candidates of each group: of them at most K end, one for each row, which leaves K to go on with.
        PAD and BOS lie below EOS."""
        own = None if ranked is logits else log_partition(logits).view(self.total.shape)
        found = best_continuations(ranked.unflatten(0, self.total.shape), self.total, 2 * self.each, EOS, own)
        return Best(*(field[:, None] for field in found))

    def truncate(
        self, found: Best, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]
    ) -> tuple[Best, Bool[Tensor, "N G C"]]:
        """At a sentence's limit its only candidates are the ends of its rows; also, which rows would have gone on. Rows
        that may not end count only where none may."""
        may = (ranked[:, EOS] > -torch.inf).view(self.total.shape)
        score = self.total + (logits[:, EOS].float() - log_partition(logits)).view(self.total.shape)
        score = self.by_group(score.masked_fill(~may & may.any(dim=1, keepdim=True), -torch.inf))
        w = score.shape[2]
        beam = best(score.flatten(0, 1), w).view(score.shape)
        score, row = score.gather(2, beam), beam + self.first_rows()
        against = (first_largest(logits[:, EOS:]) != 0).view(self.total.shape)
        against = against.gather(1, row.flatten(1)).view(row.shape)
        missing, forced = (0, 2 * self.each - w), (self.limit <= self.length)[:, None, None]
        found = Best(
            torch.where(forced, F.pad(score, missing, value=-torch.inf), found.score),
            torch.where(forced, F.pad(row, missing), found.beam),
            torch.where(forced, EOS, found.token),
        )
        return found, forced & F.pad(against, missing)

    def by_group(self, rows: Float[Tensor, "N W"]) -> Float[Tensor, "N G w"]:
        """Of each row: by the group it stands in; at the first step there is one, and it stands in the first group."""
        if rows.shape[1] == self.beams:
            return rows.unflatten(1, (self.groups, self.each))
        return F.pad(rows[:, None], (0, 0, 0, self.groups - 1), value=-torch.inf)

    def first_rows(self) -> Int[Tensor, "G 1"]:
        """The first row of each group; there is but one row at the first step."""
        size = self.each if self.total.shape[1] == self.beams else 0
        return size * torch.arange(self.groups, device=self.total.device)[:, None]

    def end(self, found: Best, ends: Bool[Tensor, "N G C"], parent: Tensor, cut: Bool[Tensor, "N G C"]) -> None:
        """Note which of the K best candidates of each group end."""
        total, ends, parent, cut = (field[:, :, : self.each].flatten(1) for field in (found.score, ends, parent, cut))
        real = ends & (total > -torch.inf)
        beam = found.beam[:, :, : self.each].flatten(1)
        score = total / self.divisors[self.length][:, None] + self.bonus(beam)
        self.trail.ended.append(
            EndedHypotheses(real, self.sentence[:, None].expand_as(real), parent, total, score, cut)
        )
        self.finished = self.finished + real.sum(dim=1)
        scores = torch.cat([self.best, score.masked_fill(~real, -torch.inf)], dim=1)
        self.best = scores.topk(self.cfg.nbest, dim=1).values

    def go_on(self, found: Best, ends: Bool[Tensor, "N G C"], parent: Tensor) -> Choice | None:
        """Go on with each group's K best candidates that do not end, in the sentences that are not done."""
        K, first = self.beams, self.total.shape[1] < self.beams
        order = ends.int().argsort(dim=2, stable=True)[:, :, : self.each]
        self.total, beam, token, parent = (field.gather(2, order).flatten(1) for field in (*found, parent))

        done = _STOPS[self.cfg.stop](self) | (self.limit <= self.length)
        moved = (beam != torch.arange(K, device=beam.device)).any()
        left, moved = torch.stack([(~done).sum(), moved]).tolist()  # the one wait for the device
        if left == 0:
            return None
        self.follow(beam)
        keep = None
        if left < len(done):
            keep = done.int().argsort(stable=True)[:left]
            beam, token, parent = beam[keep], token[keep], parent[keep]
            self.keep(keep)
        self.trail.grown.append(ContinuedRows(parent.flatten(), token.flatten(), self.total.flatten()))
        rows = (beam + K * torch.arange(left, device=beam.device)[:, None]).flatten() if moved and not first else None
        return Choice(keep, rows, token.flatten())

    def bonus(self, beam: Int[Tensor, "N C"]) -> Float[Tensor, "N C"] | float:
        """What is added to the score of translations that end now, by the hypothesis each goes on from; never more than
        nothing."""
        return 0.0

    def follow(self, beam: Int[Tensor, "N K"]) -> None:
        """Each hypothesis goes on from this one of its sentence."""

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        """Forget all others."""
        for name in _OF_SENTENCES:
            setattr(self, name, getattr(self, name)[sentences])

    def join(self, other: Strategy) -> None:
        assert isinstance(other, BeamStrategy)
        self.trail.join(other.trail)
        self.earliest = min(self.earliest, other.earliest + self.steps - other.steps)
        self.divisors = max(self.divisors, other.divisors, key=len)
        other.sentence = other.sentence + self.sentences
        self.sentences += other.sentences
        for name in _OF_SENTENCES:
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    def ahead(self) -> Float[Tensor, " N"]:
        """The score of the best beginning, as if it ended here."""
        return self.total.amax(dim=1) / self.divisors[self.length]

    def within_reach(self) -> Float[Tensor, " N"]:
        """A score that no beginning can surpass: log-probabilities only fall, and no divisor exceeds the limit's."""
        return self.total.amax(dim=1) / self.divisors[self.limit]

    def results(self) -> list[list[Hypothesis]]:
        return self.trail.trace(self.cfg.nbest)

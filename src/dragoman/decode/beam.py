"""Beam search: the K best beginnings of each sentence, one token longer at each step.

N sentences still being translated, W hypotheses of each (1 at the first step, then K), R = N x W rows, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dragoman.config import OneOf, config
from dragoman.decode.ranking import Best, best, best_continuations, first_largest, log_partition
from dragoman.decode.strategy import Choice, Hypothesis, LengthLimit, Strategy
from dragoman.decode.trail import Ended, Grown, Trail
from dragoman.errors import ConfigError
from dragoman.text.tokenizer import EOS

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

Stop = Literal["first", "full", "certain"]

_STOPS: dict[Stop, Callable[["BeamStrategy"], Bool[Tensor, " N"]]] = {
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
    stop: Stop = "full"
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


class BeamStrategy(Strategy):
    def __init__(self, cfg: Beam, limits: Sequence[int], device: torch.device):
        self.cfg, self.beams, self.sentences = cfg, cfg.size, len(limits)
        self.length, self.earliest = 0, min(limits)
        self.limit = torch.tensor(limits, device=device)  # (N,)
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its place in the batch
        self.total = torch.zeros(len(limits), 1, device=device)  # (N, W): log-probability of each beginning
        self.finished = torch.zeros_like(self.limit)  # (N,): translations that have ended
        self.best = torch.full((len(limits), cfg.nbest), -torch.inf, device=device)  # (N, nbest): their best scores
        self.last_divisor = torch.tensor([cfg.penalty.divisor(n) for n in limits], device=device)  # (N,): at the limit
        self.trail = Trail()

    def step(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Choice | None:
        self.length += 1
        N, W = self.total.shape
        # Of 2K candidates at most K end, one for each row, which leaves K to go on with. PAD and BOS lie below EOS.
        own = None if ranked is logits else log_partition(logits).view(N, W)
        found = best_continuations(ranked.unflatten(0, (N, W)), self.total, 2 * self.beams, EOS, own)
        cut = torch.zeros_like(found.token, dtype=torch.bool)
        if self.length >= self.earliest:
            found, cut = self.cut(found, logits)
        parent = found.beam + W * torch.arange(N, device=found.beam.device)[:, None]
        ends = found.token == EOS
        self.end(found, ends, parent, cut)
        return self.go_on(found, ends, parent)

    def cut(self, found: Best, logits: Float[Tensor, "R V"]) -> tuple[Best, Bool[Tensor, "N C"]]:
        """At a sentence's limit its only candidates are the ends of its rows; also, which rows would have gone on."""
        N, W = self.total.shape
        score = self.total + (logits[:, EOS].float() - log_partition(logits)).view(N, W)
        beam = best(score, W)
        against = (first_largest(logits[:, EOS:]) != 0).view(N, W).gather(1, beam)
        missing, forced = (0, 2 * self.beams - W), (self.limit <= self.length)[:, None]
        found = Best(
            torch.where(forced, F.pad(score.gather(1, beam), missing, value=-torch.inf), found.score),
            torch.where(forced, F.pad(beam, missing), found.beam),
            torch.where(forced, EOS, found.token),
        )
        return found, forced & F.pad(against, missing)

    def end(self, found: Best, ends: Bool[Tensor, "N C"], parent: Tensor, cut: Bool[Tensor, "N C"]) -> None:
        """Note which of the K best candidates end."""
        K = self.beams
        total = found.score[:, :K]
        real = ends[:, :K] & (total > -torch.inf)
        score = total / self.cfg.penalty.divisor(self.length)
        self.trail.ended.append(
            Ended(real, self.sentence[:, None].expand_as(real), parent[:, :K], total, score, cut[:, :K])
        )
        self.finished = self.finished + real.sum(dim=1)
        scores = torch.cat([self.best, score.masked_fill(~real, -torch.inf)], dim=1)
        self.best = scores.topk(self.cfg.nbest, dim=1).values

    def go_on(self, found: Best, ends: Bool[Tensor, "N C"], parent: Tensor) -> Choice | None:
        """Go on with the K best candidates that do not end, in the sentences that are not done."""
        K, first = self.beams, self.total.shape[1] == 1
        order = ends.int().argsort(dim=1, stable=True)[:, :K]
        self.total = found.score.gather(1, order)
        beam, token, parent = found.beam.gather(1, order), found.token.gather(1, order), parent.gather(1, order)

        done = _STOPS[self.cfg.stop](self) | (self.limit <= self.length)
        moved = (beam != torch.arange(K, device=beam.device)).any()
        left, moved = torch.stack([(~done).sum(), moved]).tolist()  # the one wait for the device
        if left == 0:
            return None
        keep = None
        if left < len(done):
            keep = done.int().argsort(stable=True)[:left]
            beam, token, parent = beam[keep], token[keep], parent[keep]
            self.sentence, self.limit, self.total = self.sentence[keep], self.limit[keep], self.total[keep]
            self.finished, self.best, self.last_divisor = self.finished[keep], self.best[keep], self.last_divisor[keep]
        self.trail.grown.append(Grown(parent.flatten(), token.flatten(), self.total.flatten()))
        rows = (beam + K * torch.arange(left, device=beam.device)[:, None]).flatten() if moved and not first else None
        return Choice(keep, rows, token.flatten())

    def ahead(self) -> Float[Tensor, " N"]:
        """The score of the best beginning, as if it ended here."""
        return self.total[:, 0] / self.cfg.penalty.divisor(self.length)

    def within_reach(self) -> Float[Tensor, " N"]:
        """A score that no beginning can surpass: log-probabilities only fall, and no divisor exceeds the limit's."""
        return self.total[:, 0] / self.last_divisor

    def results(self) -> list[list[Hypothesis]]:
        return self.trail.trace(self.sentences, self.cfg.nbest)

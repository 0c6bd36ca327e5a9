"""Beam search: the K best partial translations (hypotheses) of each sentence, one token longer at each step.

N sentences still being translated, W hypotheses of each (1 at the first step, then G x K), R = N x W rows, G groups of
K hypotheses (one of them in plain beam search), C candidates of a group, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.defaults import BEAM
from dragoman.decode.search.backpointers import NO_TOKEN, Backpointers, ContinuedRows, EndedHypotheses
from dragoman.decode.search.beam_kernel import BeamSettings, BeamState, beam_step, beam_walk
from dragoman.decode.search.length_penalty import Average, LengthPenalty, divisors
from dragoman.decode.search.ranking import Best, best, best_continuations, first_largest, kernels_read, log_partition
from dragoman.decode.search.strategy import (
    Choice,
    Hypothesis,
    LengthLimit,
    Outcome,
    Strategy,
    Walk,
    all_found,
    end_tokens,
)
from dragoman.errors import ConfigError, UserError
from dragoman.model.inference.slots import Slots, StepKernel
from dragoman.text.tokens.tokenizer import EOS

# ---- when a sentence is done -----------------------------------------------------------------------

StopRule = Literal["early", "first", "heuristic", "full", "certain"]

_STOPS: dict[StopRule, Callable[["BeamStrategy"], Bool[Tensor, " N"]]] = {
    "early": lambda search: search.finished >= search.beams,
    "first": lambda search: search.best[:, -1] >= search.best_unfinished(),
    "heuristic": lambda search: search.best[:, -1] >= search.best_unfinished(),
    "full": lambda search: (search.best[:, -1] >= search.best_unfinished()) & (search.finished >= search.beams),
    "certain": lambda search: search.best[:, -1] >= search.best_attainable(),
}


@config
class Beam:
    """Keep the ``size`` best hypotheses; one that ends while among the ``size`` best of a step is a translation."""

    size: int = BEAM
    penalty: LengthPenalty = Average()
    """Comparison of finished translations of different lengths."""
    stop: StopRule = "full"
    """Condition under which a sentence is done. ``first``: the ``nbest`` best finished translations score at least as
    high as its best unfinished hypothesis does so far. ``full``: besides, ``size`` translations are finished, which
    gives longer ones a chance. ``certain``: no unfinished hypothesis can reach the ``nbest`` best any more, which may
    take up to the length limit. As in transformers are ``early``, where ``size`` translations are finished whatever
    else could come, and ``heuristic``, where the ``size`` best score as high as ``first`` wants it of ``nbest``."""
    nbest: int = 1
    """Translations returned for each source."""
    limit: LengthLimit = LengthLimit()

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.size:
            raise ConfigError(f"a beam of {self.size} cannot return the {self.nbest} best: 1 <= nbest <= size")

    @property
    def draws(self) -> bool:
        """False: its choices are not random."""
        return False

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / self.penalty.divisor(length)

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BeamStrategy":
        return BeamStrategy(self, limits, device)


# ---- the search -----------------------------------------------------------------------------------


_OF_SENTENCES = ("sentence", "limit", "length", "total", "log_prob", "finished", "best")
"""Names of the attributes that hold a row for each sentence still being translated."""


class BeamCandidates(NamedTuple):
    """Candidates of each group, best first."""

    total: Float[Tensor, "N G C"]
    """Log-probability as rules changed it, to rank by."""
    beam: Int[Tensor, "N G C"]
    """The hypothesis of its sentence that each one extends."""
    token: Int[Tensor, "N G C"]
    log_prob: Float[Tensor, "N G C"]
    """The model's own."""
    parent: Int[Tensor, "N G C"]
    """Row that each one extends."""
    ends: Bool[Tensor, "N G C"]
    truncated: Bool[Tensor, "N G C"]
    complete: Bool[Tensor, "N G C"]
    """True where the answer was complete before; its last token is no part of it."""


class BeamStrategy(Strategy):
    """A beam in G groups of K hypotheses, where each group continues its own best.

    There is one group here. Subclasses with more override ``propose``, which assigns candidates to groups.
    """

    def __init__(self, cfg: Beam, limits: Sequence[int], device: torch.device, *, groups: int = 1, each: int = 0):
        self.cfg, self.sentences, self.groups, self.each = cfg, len(limits), groups, each or cfg.size
        self.beams = groups * self.each
        self.steps, self.earliest = 0, min(limits)
        self.limit = torch.tensor(limits, device=device)  # (N,): most tokens of a translation
        self.length = torch.zeros_like(self.limit)  # (N,): tokens emitted
        self.divisors = divisors(cfg.penalty, max(limits)).to(device)  # of the score, by length
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its index in the batch
        # (N, W): log-probability of each hypothesis: as rules changed it, to rank by, and the model's own
        self.total = torch.zeros(len(limits), 1, device=device)
        self.log_prob = torch.zeros_like(self.total)
        self.finished = torch.zeros_like(self.limit)  # (N,): translations that have ended
        self.kept = self.beams if cfg.stop == "heuristic" else cfg.nbest
        self.best = torch.full((len(limits), self.kept), -torch.inf, device=device)  # (N, kept): their best scores
        self.backpointers = Backpointers(len(limits))

    @property
    def candidate_count(self) -> int:
        """Number of candidates of each group: besides K that go on, all that may end."""
        return (1 + len(self.ends)) * self.each

    @property
    def settings(self) -> BeamSettings:
        """Return what the kernel needs to know besides the state."""
        ends = end_tokens(self.ends, self.divisors.device)
        return BeamSettings(self.divisors, self.beams, self.cfg.stop, ends, self.candidate_count, self.open_ended)

    @property
    def state(self) -> BeamState:
        """The sentences being translated, as the kernel reads and changes them."""
        return BeamState(*(getattr(self, name) for name in BeamState._fields))

    @state.setter
    def state(self, state: BeamState) -> None:
        for name, field in zip(BeamState._fields, state, strict=True):
            setattr(self, name, field)

    def step(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None = None
    ) -> Choice | None:
        self.steps += 1
        if type(self) is BeamStrategy and kernels_read(logits, ranked, self.total):
            return self.step_by_kernel(logits, ranked, complete)
        self.length = self.length + 1
        candidates = self.extended(logits, ranked, complete)
        self.end(candidates)
        return self.go_on(candidates)

    def extended(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None
    ) -> "BeamCandidates":
        """Return the candidates of a step."""
        N, W = self.total.shape
        partition = None if ranked is logits else log_partition(logits).view(N, W)
        found = self.propose(logits, ranked, partition)
        log_prob = self.own_log_prob(found, logits, partition)
        at_limit = (self.limit <= self.length)[:, None, None]
        truncated = torch.zeros_like(found.token, dtype=torch.bool)
        if self.steps >= self.earliest and not self.open_ended:
            ending, truncated = self.truncate(logits, ranked)
            log_prob = torch.where(at_limit, self.own_log_prob(ending, logits), log_prob)
            found = Best(*(torch.where(at_limit, a, b) for a, b in zip(ending, found, strict=True)))
            truncated = at_limit & truncated
        ends = self.is_end(found.token)
        if self.open_ended:
            ends, truncated = ends | at_limit, at_limit & ~ends
        parent = found.beam + W * torch.arange(N, device=found.beam.device)[:, None, None]
        ended_before = torch.zeros_like(ends) if complete is None else complete[parent]
        return BeamCandidates(*found, log_prob, parent, ends, truncated, ended_before)

    def step_by_kernel(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], complete: Bool[Tensor, " R"] | None
    ) -> Choice | None:
        """Make a step in C. It equals that of the methods below."""
        state, choice, ended, continued = beam_step(self.state, logits, ranked, complete, self.settings)
        self.backpointers.ended.extend(ended, [len(ended)])
        self.backpointers.continued.extend(continued, [len(continued)])
        self.state = state if choice else self.state._replace(sentence=self.sentence[:0])
        return choice

    def walk(self, model: StepKernel, slots: Slots, token: Int[Tensor, " R"], most: int, few: int) -> Walk:
        found = beam_walk(self.state, self.settings, model, slots, token, most, few)
        walked = found.walked
        self.steps += len(walked.ended)
        self.backpointers.ended.extend(found.ended, walked.ended)
        self.backpointers.continued.extend(found.continued, walked.continued)
        self.state = found.state if walked.left else self.state._replace(sentence=self.sentence[:0])
        return Walk(len(walked.ended), Choice(None, None, walked.token) if walked.left else None)

    def propose(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"], partition: Float[Tensor, "N W"] | None
    ) -> Best:
        """Return the best candidates of each group, 2K where one token ends an answer.

        At most K of them end, one for each row, so that K are left to go on. PAD and BOS lie below EOS.
        ``partition`` is that of ``logits``, where rules have changed these.
        """
        by_row = ranked.unflatten(0, self.total.shape)
        found = best_continuations(by_row, self.total, self.candidate_count, EOS, partition)
        return Best(*(field[:, None] for field in found))

    def own_log_prob(
        self, found: Best, logits: Float[Tensor, "R V"], partition: Float[Tensor, "N W"] | None = None
    ) -> Float[Tensor, "N G C"]:
        """Return the model's own log-probability of each candidate; no rule is at work without ``partition``."""
        row, token = found.beam.flatten(1), found.token.flatten(1)
        if partition is None:
            own = found.score + (self.log_prob - self.total).gather(1, row).view(found.score.shape)
        else:
            before = self.log_prob - partition
            chosen = logits.view(len(row), -1).gather(1, row * logits.shape[1] + token).float()
            own = (chosen + before.gather(1, row)).view(found.score.shape)
        return torch.where(found.score > -torch.inf, own, found.score)

    def truncate(
        self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]
    ) -> tuple[Best, Bool[Tensor, "N G C"]]:
        """Return the candidates of a sentence at its limit: the ends of its rows.

        Also return which of these rows would have gone on. A row that may not end is a candidate only where none may.
        """
        may = (ranked[:, EOS] > -torch.inf).view(self.total.shape)
        score = self.total + (logits[:, EOS].float() - log_partition(logits)).view(self.total.shape)
        score = self.in_groups(score.masked_fill(~may & may.any(dim=1, keepdim=True), -torch.inf))
        w = score.shape[2]
        beam = best(score.flatten(0, 1), w).view(score.shape)
        score, row = score.gather(2, beam), beam + self.first_rows()
        would_go_on = (first_largest(ranked[:, EOS:]) != 0).view(self.total.shape)
        would_go_on = would_go_on.gather(1, row.flatten(1)).view(row.shape)
        missing = (0, self.candidate_count - w)
        row = F.pad(row, missing)
        found = Best(F.pad(score, missing, value=-torch.inf), row, torch.full_like(row, EOS))
        return found, F.pad(would_go_on, missing)

    def in_groups(self, rows: Float[Tensor, "N W"]) -> Float[Tensor, "N G w"]:
        """Return the rows by group; at the first step the one row of a sentence is in the first group."""
        if rows.shape[1] == self.beams:
            return rows.unflatten(1, (self.groups, self.each))
        return F.pad(rows[:, None], (0, 0, 0, self.groups - 1), value=-torch.inf)

    def first_rows(self) -> Int[Tensor, "G 1"]:
        """Return the index of the first row of each group; at the first step there is only one row."""
        size = self.each if self.total.shape[1] == self.beams else 0
        return size * torch.arange(self.groups, device=self.total.device)[:, None]

    def end(self, candidates: "BeamCandidates") -> None:
        """Record which of the K best candidates of each group end."""
        some = (field[:, :, : self.each].flatten(1) for field in candidates)
        total, beam, token, log_prob, parent, ends, truncated, complete = some
        real = ends & (total > -torch.inf)
        length, token = self.length[:, None] - complete.long(), token.masked_fill(complete, NO_TOKEN)
        score = total / self.divisors[length] + self.bonus(beam)
        sentence = self.sentence.repeat_interleave(real.shape[1])
        fields = (field.flatten() for field in (parent, token, log_prob, score, truncated, real))
        self.backpointers.ended.append(EndedHypotheses(sentence, *fields))
        self.finished = self.finished + real.sum(dim=1)
        scores = torch.cat([self.best, score.masked_fill(~real, -torch.inf)], dim=1)
        self.best = scores.topk(self.kept, dim=1).values

    def go_on(self, candidates: "BeamCandidates") -> Choice | None:
        """Continue with each group's K best candidates that do not end, in the sentences that are not done."""
        K, first = self.beams, self.total.shape[1] < self.beams
        order = candidates.ends.int().argsort(dim=2, stable=True)[:, :, : self.each]
        some = (field.gather(2, order).flatten(1) for field in candidates[:5])
        self.total, beam, token, self.log_prob, parent = some

        done = _STOPS[self.cfg.stop](self) | (self.limit <= self.length)
        moved = (beam != torch.arange(K, device=beam.device)).any()
        left, moved = torch.stack([(~done).sum(), moved]).tolist()  # the one wait for the device
        if left == 0:
            self.sentence = self.sentence[:0]
            return None
        self.follow(beam)
        keep = None
        if left < len(done):
            keep = done.int().argsort(stable=True)[:left]
            beam, token, parent = beam[keep], token[keep], parent[keep]
            self.keep(keep)
        self.backpointers.continued.append(ContinuedRows(parent.flatten(), token.flatten(), self.log_prob.flatten()))
        rows = (beam + K * torch.arange(left, device=beam.device)[:, None]).flatten() if moved and not first else None
        return Choice(keep, rows, token.flatten())

    def bonus(self, beam: Int[Tensor, "N C"]) -> Float[Tensor, "N C"] | float:
        """Return what is added to the scores of translations that end now, by the hypothesis each one extends.

        It must never be positive: ``stop: certain`` relies on it.
        """
        return 0.0

    def follow(self, beam: Int[Tensor, "N K"]) -> None:
        """Receive, for each hypothesis, the one of its sentence that it extends; called after each step."""

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        """Keep these sentences and drop all others."""
        for name in _OF_SENTENCES:
            setattr(self, name, getattr(self, name)[sentences])

    def join(self, other: Strategy) -> None:
        assert isinstance(other, BeamStrategy)
        self.backpointers.join(other.backpointers)
        self.earliest = min(self.earliest, other.earliest + self.steps - other.steps)
        self.divisors = max(self.divisors, other.divisors, key=len)
        other.sentence = other.sentence + self.sentences
        self.sentences += other.sentences
        for name in _OF_SENTENCES:
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    def best_unfinished(self) -> Float[Tensor, " N"]:
        """Return the score of the best unfinished hypothesis, as if it ended here."""
        return self.total.amax(dim=1) / self.divisors[self.length]

    def best_attainable(self) -> Float[Tensor, " N"]:
        """Return a score that no unfinished hypothesis can surpass.

        Log-probabilities only fall, unless a rule raises them, and no divisor exceeds the limit's.
        """
        return self.total.amax(dim=1) / self.divisors[self.limit]

    def end_early(self, sentences: Sequence[int]) -> None:
        ending = torch.isin(self.sentence, torch.tensor(list(sentences), device=self.sentence.device))
        self.limit = torch.where(ending, self.length + 1, self.limit)
        self.earliest = min(self.earliest, self.steps + 1)

    def take_finished(self) -> dict[int, Outcome]:
        finished = self.backpointers.started - set(self.sentence.tolist())
        traced = self.backpointers.trace(self.traced, finished)
        found = {i: each if isinstance(each, UserError) else self.chosen(each) for i, each in traced.items()}
        self.backpointers.forget(finished)
        return found

    @property
    def traced(self) -> int:
        """Number of hypotheses of each sentence that ``chosen`` chooses from."""
        return self.cfg.nbest

    def chosen(self, found: list[Hypothesis]) -> list[Hypothesis]:
        """Return the hypotheses of a sentence that are its results."""
        return found

    def results(self) -> list[list[Hypothesis]]:
        return [self.chosen(found) for found in all_found(self.backpointers.trace(self.traced).values())]

"""Greedy search: the most probable token at each step.

B sentences of a batch, N of them still being translated, V vocabulary.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import config
from dragoman.decode.search.emitted import TOKEN, Emitted, EmittedTokens, outcomes
from dragoman.decode.search.ranking import likeliest, log_prob_of
from dragoman.decode.search.strategy import (
    Choice,
    EmittedToken,
    Hypothesis,
    LengthLimit,
    Outcome,
    Strategy,
    Walk,
    all_found,
)
from dragoman.model.inference.slots import Slots, StepKernel
from dragoman.model.inference.walk import most_steps, walk
from dragoman.native.library import library
from dragoman.text.tokens.tokenizer import EOS


@config
class Greedy:
    """Take the most probable token at each step, the lower id of equals. The score is the mean log-probability."""

    limit: LengthLimit = LengthLimit()

    @property
    def draws(self) -> bool:
        """False: its choices are not random."""
        return False

    @property
    def size(self) -> int:
        return 1

    @property
    def nbest(self) -> int:
        return 1

    def score(self, log_prob: float, length: int) -> float:
        return log_prob / length

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "GreedyStrategy":
        return GreedyStrategy(self, limits, device)


class GreedyStrategy(Strategy):
    """Greedy search of one batch: one hypothesis a sentence."""

    def __init__(self, cfg: Greedy, limits: Sequence[int], device: torch.device):
        self.cfg, self.sentences = cfg, len(limits)
        self.steps, self.earliest = 0, min(limits)
        self.limit = torch.tensor(limits, device=device)  # (N,): the step at which it is ended
        self.sentence = torch.arange(len(limits), device=device)  # (N,): its index in the batch
        self.emitted = EmittedTokens(len(limits))

    def step(
        self, logits: Float[Tensor, "N V"], ranked: Float[Tensor, "N V"], complete: Bool[Tensor, " N"] | None = None
    ) -> Choice | None:
        self.steps += 1
        emitted = self.choose(logits, ranked)
        self.emitted.append(emitted if complete is None else emitted._replace(real=~complete))
        token = emitted.token
        done = self.is_end(token)
        if self.open_ended and self.steps >= self.earliest:
            done |= self.limit <= self.steps
        left = len(done) - int(done.sum())  # the one wait for the device
        if left == 0:
            self.sentence = self.sentence[:0]
            return None
        if left == len(done):
            return Choice(None, None, token)
        keep = done.int().argsort(stable=True)[:left]
        self.sentence, self.limit = self.sentence[keep], self.limit[keep]
        return Choice(keep, None, token[keep])

    def choose(self, logits: Float[Tensor, "N V"], ranked: Float[Tensor, "N V"]) -> Emitted:
        real = torch.ones_like(self.sentence, dtype=torch.bool)
        if ranked is logits and self.steps < self.earliest:
            return Emitted(self.sentence, *likeliest(logits, EOS), ~real, real)
        wanted, at_limit = self.guess(ranked, 0), self.limit <= self.steps
        token = wanted if self.open_ended else wanted.masked_fill(at_limit, EOS)
        log_prob = log_prob_of(logits, token)
        if ranked is not logits:
            nothing = ranked.gather(1, wanted[:, None])[:, 0] == -torch.inf  # which is chosen where none is allowed
            log_prob = log_prob.masked_fill(nothing, -torch.inf)
        return Emitted(self.sentence, token, log_prob, at_limit & ~self.is_end(wanted), real)

    def walk(self, model: StepKernel, slots: Slots, token: Int[Tensor, " R"], most: int, few: int) -> Walk:
        rows, made = len(self.sentence), self.steps
        steps = most_steps(slots.pool, rows, min(most, int(self.limit.max()) - made))
        found = np.empty(rows * steps, TOKEN)
        self.sentence, self.limit = self.sentence.clone(), self.limit.clone()  # earlier steps point to those
        addresses = self.sentence.data_ptr(), self.limit.data_ptr(), found.ctypes.data
        struct = GreedyStruct(rows, model.output_size, EOS, self.open_ended, made, *addresses)
        walked = walk(library().walk_greedy, struct, model, slots, token, rows=rows, steps=steps, few=few)
        self.steps = struct.steps
        self.emitted.extend(found[: sum(walked.ended)], walked.ended)
        self.sentence, self.limit = self.sentence[: walked.left], self.limit[: walked.left]
        return Walk(self.steps - made, Choice(None, None, walked.token) if walked.left else None)

    def join(self, other: Strategy) -> None:
        assert isinstance(other, GreedyStrategy)
        offset = self.steps - other.steps
        self.earliest = min(self.earliest, other.earliest + offset)
        self.limit = torch.cat([self.limit, other.limit + offset])
        self.sentence = torch.cat([self.sentence, other.sentence + self.sentences])
        self.emitted.join(other.emitted, self.sentences)
        self.sentences += other.sentences

    def end_early(self, sentences: Sequence[int]) -> None:
        ending = torch.isin(self.sentence, torch.tensor(list(sentences), device=self.sentence.device))
        self.limit, self.earliest = self.limit.masked_fill(ending, self.steps), min(self.earliest, self.steps)

    def newest(self, rows: int) -> list[EmittedToken]:
        return self.emitted.newest_tokens(rows)

    def take_finished(self) -> dict[int, Outcome]:
        return dict(outcomes(self.emitted.take_all_but(self.sentence), self.cfg.score))

    def results(self) -> list[list[Hypothesis]]:
        return all_found(outcome for _, outcome in outcomes(self.emitted.entries, self.cfg.score))


class GreedyStruct(ctypes.Structure):
    """Struct ``Greedy`` of native/walk.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "vocabulary", "eos", "open_ended", "steps")),
        *((name, ctypes.c_void_p) for name in ("sentence", "limit", "found")),
    ]

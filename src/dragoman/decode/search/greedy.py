"""Greedy search: the most probable token at each step.

B sentences of a batch, N of them still being translated, V vocabulary.
"""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dragoman.config import config
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
    not_numbers,
    nothing_allowed,
)
from dragoman.errors import UserError
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

    def choose(self, logits: Float[Tensor, "N V"], ranked: Float[Tensor, "N V"]) -> "Emitted":
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
        whole, flags = torch.empty(2, rows * steps, dtype=torch.long), torch.ones(2, rows * steps, dtype=torch.bool)
        emitted = Emitted(whole[0], whole[1], torch.empty(rows * steps), flags[0], flags[1])
        self.sentence, self.limit = self.sentence.clone(), self.limit.clone()  # earlier steps point to those
        addresses = (t.data_ptr() for t in (self.sentence, self.limit, *emitted[:4]))
        struct = EmittedStruct(rows, model.output_size, EOS, self.open_ended, made, *addresses)
        walked = walk(library().walk_greedy, struct, model, slots, token, rows=rows, steps=steps, few=few)
        self.steps, every = struct.steps, sum(walked.ended)
        self.emitted.append(Emitted(*(field[:every] for field in emitted)), newest=walked.ended[-1])
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
        return self.emitted.newest(rows)

    def take_finished(self) -> dict[int, Outcome]:
        rows, emitted = self.emitted.take_all_but(self.sentence)
        return dict(zip(rows, outcomes(emitted, self.cfg.score), strict=True))

    def results(self) -> list[list[Hypothesis]]:
        return all_found(outcomes(self.emitted.steps, self.cfg.score))


class EmittedStruct(ctypes.Structure):
    """Struct ``Emitted`` of native/walk.c."""

    __slots__ = ()  # a name that is no field raises, instead of becoming an attribute that C never sees
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("N", "vocabulary", "eos", "open_ended", "steps")),
        *((name, ctypes.c_void_p) for name in ("sentence", "limit", "row", "token", "log_prob", "truncated")),
    ]


# ---- emitted tokens into hypotheses -----------------------------------------------------------------


class Emitted(NamedTuple):
    """Tokens that the rows of a batch emitted at one step."""

    row: Int[Tensor, "*R"]
    """Index of the row among all rows of the batch."""
    token: Int[Tensor, "*R"]
    log_prob: Float[Tensor, "*R"]
    """Minus infinity where the rules allowed no token; the row then has no hypothesis."""
    truncated: Bool[Tensor, "*R"]
    """True where the length limit ended the row; it would have gone on, or could have."""
    real: Bool[Tensor, "*R"]
    """False in rows that had already ended, and where an answer was complete before."""


class EmittedTokens:
    """The tokens that a batch emitted, in order."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        """Number of rows whose tokens are here."""
        self.steps: list[Emitted] = []
        """Records of one or more steps each."""
        self.newest_tokens = 0
        """Number of tokens of the last step, which end the last record."""

    def append(self, steps: Emitted, newest: int | None = None) -> None:
        """Append a record, of whose last step are the last ``newest`` tokens; None for all of them."""
        self.steps.append(steps)
        self.newest_tokens = len(steps.row) if newest is None else newest

    def join(self, other: "EmittedTokens", rows: int) -> None:
        """Append the tokens of a batch whose rows follow ``rows`` others."""
        self.rows += other.rows
        self.steps += [step._replace(row=step.row + rows) for step in other.steps]

    def newest(self, rows: int) -> list[EmittedToken]:
        """Return the tokens of the last step, whose logits had so many rows."""
        step = Emitted(*(field[len(field) - self.newest_tokens :] for field in self.steps[-1]))
        fields = (field.flatten().tolist() for field in (step.row, step.token, step.log_prob, step.real))
        each, tokens = step.row.numel() // rows, enumerate(zip(*fields, strict=True))
        return [EmittedToken(row, token, log_prob, i // each) for i, (row, token, log_prob, real) in tokens if real]

    def take_all_but(self, rows: Int[Tensor, "*R"]) -> tuple[list[int], list[Emitted]]:
        """Remove the tokens of all rows but ``rows``; return the indices of these others, and their tokens with rows
        counted from 0 in that order."""
        if rows.numel() == self.rows:  # most steps: nobody is done
            return [], []
        self.rows = rows.numel()
        every = _joined(self.steps)
        staying = torch.isin(every.row, rows)
        self.steps = [Emitted(*(field[staying] for field in every))]
        taken = Emitted(*(field[~staying] for field in every))
        indices, row = taken.row.unique(return_inverse=True)
        return indices.tolist(), [taken._replace(row=row)] if len(indices) else []


def _joined(steps: Sequence[Emitted]) -> Emitted:
    """Return the tokens of all steps, of which there is one at least, in one record of one dimension."""
    if len(steps) == 1:
        return Emitted(*(field.flatten() for field in steps[0]))
    return Emitted(*(torch.cat([t.flatten() for t in field]) for field in zip(*steps, strict=True)))


def outcomes(steps: Sequence[Emitted], scored: Callable[[float, int], float], rows: int = 1) -> Iterator[Outcome]:
    """Yield the outcome of each sentence of a batch, where rows are never reordered.

    Args:
        steps: what was emitted.
        scored: score of a log-probability and a number of tokens.
        rows: rows of each sentence, which follow one another; their hypotheses come best first.
    """
    written: dict[int, list[tuple[int, float, bool]]] = {}
    columns = (field.tolist() for field in _joined(steps)) if steps else ()
    for row, token, log_prob, truncated, real in zip(*columns, strict=True):
        if real:
            written.setdefault(row, []).append((token, log_prob, truncated))
    found = [_hypothesis(written[row], scored) for row in sorted(written)]
    for i in range(0, len(found), rows):
        one = found[i : i + rows]
        failed = next((each for each in one if isinstance(each, UserError)), None)
        yield failed or sorted((each for each in one if isinstance(each, Hypothesis)), key=lambda h: -h.score)


def _hypothesis(
    written: list[tuple[int, float, bool]], scored: Callable[[float, int], float]
) -> Hypothesis | UserError:
    tokens, log_probs, truncated = zip(*written, strict=True)
    total = sum(log_probs)
    if not math.isfinite(total):
        return nothing_allowed() if total == -math.inf else not_numbers()
    return Hypothesis(tokens, log_probs, total, scored(total, len(tokens)), truncated[-1])

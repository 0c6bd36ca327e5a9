"""Translations that hold what they must and nothing that they must not.

The rule keeps the promise, with any search: it forbids what would say a forbidden term, an end that comes too early,
and whatever would leave too few tokens for what is still missing. Left to a plain search the terms would come at the
last moment, where they fit worst. So a beam is kept in banks, as in grid beam search (Hokamp & Liu 2017) and dynamic
beam allocation (Post & Vilar 2018): hypotheses compete only with those that have said as many terms, and those in the
middle of one have banks of their own. A term so gets its place wherever the model likes it best.

N sentences still being translated, W hypotheses of each, R = N x W rows, G banks, V vocabulary, A places so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.constraints.completion_bound import NEVER, CompletionBound
from dragoman.decode.constraints.terms import Automaton, Terms
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.search.beam import Beam, BeamStrategy
from dragoman.decode.search.ranking import Best, best_continuations, first_largest, log_partition
from dragoman.decode.search.rule import RowMemory, Rule
from dragoman.decode.search.strategy import Choice
from dragoman.text.tokens.tokenizer import EOS

STAGES = 3
"""Banks for each number of terms said: beginnings of a term are likelier than halves, and would crowd them out."""

TermPlace = tuple[int, int, int]
"""Number of an automaton, its state, terms said as bits."""


class TermRule(Rule):
    """Terms of each sentence of a batch."""

    joinable = False

    banks: Int[Tensor, "R V"]
    """Where each next token leads: to the bank 3 c where c terms are said and none is under way, to 3 c + 1 where one
    is, to 3 c + 2 where half of one is said; -1 where it may not be said."""

    def __init__(self, terms: Sequence[Terms], vocabulary: SpelledVocabulary, device: torch.device):
        distinct = list(dict.fromkeys(terms))
        self.automata = [Automaton(some, vocabulary) for some in distinct]
        self.ways = [CompletionBound(automaton) for automaton in self.automata]
        self.needs = [self.automata[distinct.index(some)].room for some in terms]
        self.count = max(automaton.count for automaton in self.automata)
        self.length = 0
        self.numbers: dict[TermPlace, int] = {}
        self.places: list[TermPlace] = []
        self.table = torch.empty(0, len(vocabulary.spellings), dtype=torch.int8, device=device)  # (A, V)
        start = [self.number((i, automaton.start, 0)) for i, automaton in enumerate(self.automata)]
        rows = [(start[distinct.index(some)], sentence) for sentence, some in enumerate(terms)]
        self.memory = RowMemory(torch.tensor(rows, device=device))  # (R, 2): number of a place, sentence of the batch
        self.ways_on: dict[TermPlace, Tensor] = {}
        self.limits: list[int] = []

    def begin(self, limits: Sequence[int]) -> None:
        self.limits = list(limits)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        self.length += 1
        self.tabulate()
        self.banks = self.table[self.memory.rows[:, 0]]
        for row, (number, sentence) in enumerate(self.memory.rows.tolist()):
            place, left = self.places[number], self.limits[sentence] - self.length  # tokens after this one
            if left <= self.automata[place[0]].room + 1 or self.automata[place[0]].once:
                self.banks[row] = self.banks[row].masked_fill(self.needed(place) > left, -1)
        return logits.masked_fill(self.banks < 0, -torch.inf)

    def follow(self, choice: Choice) -> None:
        self.memory.follow(choice)
        pairs = zip(self.memory.rows[:, 0].tolist(), choice.tokens.tolist(), strict=True)
        numbers = [self.number(self.after(self.places[number], token)) for number, token in pairs]
        self.memory.rows = torch.stack([torch.tensor(numbers, device=choice.tokens.device), self.memory.rows[:, 1]], 1)

    # ---- places -----------------------------------------------------------------------------------

    def number(self, place: TermPlace) -> int:
        if place not in self.numbers:
            self.numbers[place] = len(self.places)
            self.places.append(place)
        return self.numbers[place]

    def after(self, place: TermPlace, token: int) -> TermPlace:
        which, state, said = place
        steps = self.automata[which].after(state)
        return which, int(steps.state[token]), said | int(steps.said[token])

    def tabulate(self) -> None:
        """Rows of the table for places that have come up."""
        new = [self.row_tensor(place) for place in self.places[len(self.table) :]]
        if new:
            self.table = torch.cat([self.table, torch.from_numpy(np.stack(new)).to(self.table.device)])

    def row_tensor(self, place: TermPlace) -> Int[np.ndarray, " V"]:
        which, state, said = place
        automaton = self.automata[which]
        steps = automaton.after(state)
        states, where = np.unique(steps.state, return_inverse=True)
        begun, half, whole = np.array([automaton.under_way(s) for s in states.tolist()]).T[:, where]
        got = said | steps.said | whole
        count = sum(((got >> i) & 1 for i in range(automaton.count)), np.zeros_like(got))
        stage = ((begun & ~got) != 0).astype(int) + ((half & ~got) != 0)
        banks = np.where(steps.state == 0, -1, STAGES * count + stage).astype(np.int8)
        may, last = automaton.at_end(state)
        ended = state == 0  # nothing real goes on from there, and something must be left to choose
        banks[EOS] = STAGES * automaton.count if ended or (may and said | last == automaton.all) else -1
        return banks

    def needed(self, place: TermPlace) -> Int[Tensor, " V"]:
        """How many tokens it takes to the end after each next one, the end included."""
        if place not in self.ways_on:
            which, state, said = place
            steps, way, span = self.automata[which].after(state), self.ways[which], self.automata[which].all + 1
            reached, where = np.unique(steps.state.astype(np.int64) * span + (said | steps.said), return_inverse=True)
            way.explore((reached // span).tolist())
            tokens = [way.tokens(*divmod(key, span)) if key >= span else NEVER for key in reached.tolist()]
            needed = 1 + np.array(tokens)[where]
            needed[EOS] = 0
            self.ways_on[place] = torch.from_numpy(needed).to(self.table.device)
        return self.ways_on[place]


# ---- the beam in banks ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BankedBeam(Beam):
    """A beam of ``size`` in each bank of a rule, whose sentences should require equally many terms."""

    rule: TermRule

    @property
    def banks(self) -> int:
        return STAGES * self.rule.count + 1

    def start(self, limits: Sequence[int], device: torch.device, seeds: Sequence[int] = ()) -> "BankedStrategy":
        return BankedStrategy(self, limits, device)


class BankedStrategy(BeamStrategy):
    def __init__(self, cfg: BankedBeam, limits: Sequence[int], device: torch.device):
        super().__init__(cfg, limits, device, groups=cfg.banks, each=cfg.size)
        self.rule = cfg.rule
        self.ripe = torch.zeros(len(limits), dtype=torch.bool, device=device)  # (N,): the model would have ended it

    def propose(self, logits: Float[Tensor, "R V"], ranked: Float[Tensor, "R V"]) -> Best:
        own, shape = log_partition(logits).view(self.total.shape), self.total.shape
        ending = (first_largest(logits[:, EOS:]) == 0).view(shape)[
            :, :: STAGES * self.each
        ]  # best of those between terms
        self.ripe = self.ripe | ending[:, : max(1, self.groups // STAGES)].any(dim=1)
        proposals = []
        for bank in range(self.groups):
            here = ranked.masked_fill(self.rule.banks != bank, -torch.inf).unflatten(0, shape)
            proposals.append(best_continuations(here, self.total, 2 * self.each, EOS, own))
        return Best(*(torch.stack(fields, dim=1) for fields in zip(*proposals, strict=True)))

    def ahead(self) -> Float[Tensor, " N"]:
        """Once the model would have ended a sentence, only beginnings that hold all terms are worth waiting for."""
        complete = self.total[:, -self.each :].amax(dim=1)
        best = torch.where(self.ripe, complete, self.total.amax(dim=1))
        return best / self.divisors[self.length]

    def keep(self, sentences: Int[Tensor, " n"]) -> None:
        super().keep(sentences)
        self.ripe = self.ripe[sentences]

"""Lexically constrained search: translations that contain all required terms and no forbidden one.

The rule guarantees this with any search. It forbids tokens that would complete a forbidden term, an end that comes too
early, and every token after which too few are left for the missing terms. With a plain search the terms would come at
the last moment, where they fit worst; ``banked.py`` finds better places.

R rows, V vocabulary, A places so far.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dragoman.decode.constraints.completion_bound import NEVER, CompletionBound
from dragoman.decode.constraints.terms import Automaton, Terms
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.search.rule import RowMemory, Rule
from dragoman.decode.search.strategy import Choice
from dragoman.text.tokens.tokenizer import EOS

STAGES = 3
"""Banks for each number of terms: hypotheses that have just started a term score higher than those halfway through it,
and would crowd them out."""

TermPlace = tuple[int, int, int]
"""Index of an automaton, its state, and the emitted terms as bits."""


class TermRule(Rule):
    """The terms of each sentence of a batch."""

    joinable = False

    banks: Int[Tensor, "R V"]
    """Bank that each next token leads to: 3 c where c terms are complete and none is under way, 3 c + 1 where one is,
    3 c + 2 where half of one is emitted; -1 where the token is forbidden."""

    def __init__(
        self, terms: Sequence[Terms], vocabulary: SpelledVocabulary, device: torch.device, *, after_first: bool = False
    ):
        """
        Args:
            after_first: the text comes after a first token that another rule gives (``first_token.py``).
        """
        self.waits = after_first
        distinct = list(dict.fromkeys(terms))
        self.automata = [Automaton(each, vocabulary) for each in distinct]
        self.bounds = [CompletionBound(automaton) for automaton in self.automata]
        self.needs = [self.automata[distinct.index(each)].room for each in terms]
        self.count = max(automaton.count for automaton in self.automata)
        self.length = 0
        self.numbers: dict[TermPlace, int] = {}
        self.places: list[TermPlace] = []
        self.table = torch.empty(0, len(vocabulary.spellings), dtype=torch.int8, device=device)  # (A, V)
        start = [self.number((i, automaton.start, 0)) for i, automaton in enumerate(self.automata)]
        rows = [(start[distinct.index(each)], sentence) for sentence, each in enumerate(terms)]
        self.memory = RowMemory(torch.tensor(rows, device=device))  # (R, 2): index of a place, sentence of the batch
        self.remaining: dict[TermPlace, Tensor] = {}
        self.limits: list[int] = []

    def begin(self, limits: Sequence[int]) -> None:
        self.limits = list(limits)

    def apply(self, logits: Float[Tensor, "R V"]) -> Float[Tensor, "R V"]:
        self.length += 1
        if self.waits:
            self.banks = torch.zeros_like(logits, dtype=torch.int8)
            return logits
        self.tabulate()
        self.banks = self.table[self.memory.rows[:, 0]]
        for row, (number, sentence) in enumerate(self.memory.rows.tolist()):
            place, left = self.places[number], self.limits[sentence] - self.length  # tokens after this one
            if left <= self.automata[place[0]].room + 1 or self.automata[place[0]].once:
                self.banks[row] = self.banks[row].masked_fill(self.needed(place) > left, -1)
        return logits.masked_fill(self.banks < 0, -torch.inf)

    def follow(self, choice: Choice) -> None:
        self.memory.follow(choice)
        if self.waits:
            self.waits = False
            return
        pairs = zip(self.memory.rows[:, 0].tolist(), choice.tokens.tolist(), strict=True)
        numbers = [self.number(self.after(self.places[number], token)) for number, token in pairs]
        self.memory.rows = torch.stack([torch.tensor(numbers, device=choice.tokens.device), self.memory.rows[:, 1]], 1)

    # ---- places -----------------------------------------------------------------------------------

    def number(self, place: TermPlace) -> int:
        """Return the index of a place, which is new where the place is."""
        if place not in self.numbers:
            self.numbers[place] = len(self.places)
            self.places.append(place)
        return self.numbers[place]

    def after(self, place: TermPlace, token: int) -> TermPlace:
        """Return the place that a token leads to."""
        index, state, emitted = place
        steps = self.automata[index].after(state)
        return index, int(steps.state[token]), emitted | int(steps.emitted[token])

    def tabulate(self) -> None:
        """Extend the table by a row for each new place."""
        new = [self.row_tensor(place) for place in self.places[len(self.table) :]]
        if new:
            self.table = torch.cat([self.table, torch.from_numpy(np.stack(new)).to(self.table.device)])

    def row_tensor(self, place: TermPlace) -> Int[np.ndarray, " V"]:
        """Return the bank of each next token."""
        index, state, emitted = place
        automaton = self.automata[index]
        steps = automaton.after(state)
        states, where = np.unique(steps.state, return_inverse=True)
        started, half, complete = np.array([automaton.under_way(s) for s in states.tolist()]).T[:, where]
        got = emitted | steps.emitted | complete
        count = sum(((got >> i) & 1 for i in range(automaton.count)), np.zeros_like(got))
        stage = ((started & ~got) != 0).astype(int) + ((half & ~got) != 0)
        banks = np.where(steps.state == 0, -1, STAGES * count + stage).astype(np.int8)
        may, last = automaton.at_end(state)
        ended = state == 0  # the hypothesis is dead already, but some token must be left to choose
        banks[EOS] = STAGES * automaton.count if ended or (may and emitted | last == automaton.all) else -1
        return banks

    def needed(self, place: TermPlace) -> Int[Tensor, " V"]:
        """Return the number of tokens needed after each next one, the end included."""
        if place not in self.remaining:
            index, state, emitted = place
            steps, bound, span = self.automata[index].after(state), self.bounds[index], self.automata[index].all + 1
            reached, where = np.unique(
                steps.state.astype(np.int64) * span + (emitted | steps.emitted), return_inverse=True
            )
            bound.explore((reached // span).tolist())
            tokens = [bound.tokens(*divmod(key, span)) if key >= span else NEVER for key in reached.tolist()]
            needed = 1 + np.array(tokens)[where]
            needed[EOS] = 0
            self.remaining[place] = torch.from_numpy(needed).to(self.table.device)
        return self.remaining[place]

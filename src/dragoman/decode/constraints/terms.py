"""Terms that must be said and terms that must not, followed a byte at a time through whatever tokens they are cut into.

All terms of a sentence stand in one automaton (after Aho & Corasick 1975, with all matches kept instead of failure
links). Its states are numbered as they are first reached; state 0 is where there is no way on: a forbidden term has
been said, or bytes that are no text.

V vocabulary, L bytes of the longest token, A states so far.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from dragoman.decode.constraints.characters import ALPHABETIC, APART, INDIC, LEADS, NEXT, READINGS, group
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Alternatives
from dragoman.errors import ConfigError
from dragoman.text.cleaning.clean import normalise

MOST = 16
"""Terms that one translation can be made to hold."""
_MARGIN = 8  # tokens to end a character, and a word that may not end


@dataclass(frozen=True)
class Terms:
    """What a translation must hold, one alternative of each, and what it must not hold.

    A term counts as a whole word, or words: ``art`` is not in ``party``. An asterisk leaves an edge open: ``bater*`` is
    in every word that begins so. A circumflex means that the translation begins with it. Scripts that write no spaces
    between words have no whole words; there a term counts wherever it stands. Upper and lower case differ.
    """

    required: tuple[Alternatives, ...] = ()
    forbidden: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.required or self.forbidden)


@dataclass(eq=False)
class _Node:
    """Some bytes of a term, or all of them."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    begun: int = 0
    """The required terms that begin so, as bits."""
    half: int = 0
    """Those of which at least half is said."""
    ends: list[tuple[int, int]] = field(default_factory=list)
    """(bit of the required term or 0 for a forbidden one, group of letters that must not follow) of those that are
    complete here."""

    @property
    def lasts(self) -> bool:
        """Whether the bytes to come matter."""
        return bool(self.children) or any(after != APART for _, after in self.ends)


@dataclass(frozen=True)
class TermSteps:
    """What comes of each token, said in one state."""

    state: Int[np.ndarray, " V"]
    said: Int[np.ndarray, " V"]
    """The required terms that it completes, as bits."""


class Automaton:
    def __init__(self, terms: Terms, vocabulary: SpelledVocabulary):
        if len(terms.required) > MOST:
            raise ConfigError(f"{len(terms.required)} terms are required of one translation: at most {MOST} can be")
        self.terms, self.vocabulary = terms, vocabulary
        self.count, self.all = len(terms.required), 2 ** len(terms.required) - 1
        self.roots = {before: _Node() for before in (APART, ALPHABETIC, INDIC)}
        """Where terms begin, by the group that must not stand before them."""
        self.opening = _Node(children={0x20: _Node()})
        """Where those begin that must stand first, behind the tokenizer's space or without it."""
        self.alphabet: set[int] = set()
        """The bytes of which required terms consist."""
        lengths = [[self._plant(t, 1 << i) for t in alternatives] for i, alternatives in enumerate(terms.required)]
        self.room = _MARGIN + sum(max(some) + 2 for some in lengths)
        """Tokens that are enough to say all that is required, from wherever a text has come to."""
        self.once = any(all(t.startswith("^") for t in alternatives) for alternatives in terms.required)
        """Whether something can be said at the beginning only."""
        for term in terms.forbidden:
            self._plant(term, 0)

        self.numbers: dict[tuple[frozenset[_Node], int], int] = {}
        self.next = np.zeros((1, 256), dtype=np.int32)  # (A, 256)
        self.said = np.zeros((1, 256), dtype=np.int64)  # (A, 256): terms that a byte completes
        self.states: list[tuple[frozenset[_Node], int]] = [(frozenset(), -1)]
        self.known = np.ones(1, dtype=bool)  # (A,): whose rows are filled in
        self.steps: dict[int, TermSteps] = {}
        self.start = self._number(frozenset([self.opening]), APART)
        """Before the first byte, which may be the space that a tokenizer puts before the first word."""

    def _plant(self, term: str, bit: int) -> int:
        """Add a term; returns its length in bytes."""
        tidy = normalise(term)
        bare = normalise(tidy.removeprefix("^").removeprefix("*").removesuffix("*"))
        if not bare:
            raise ConfigError(f"{term!r}: a term must say something")
        self.vocabulary.spelt(bare)
        before, after = (group(edge.encode()) for edge in (bare[0], bare[-1]))
        before, after = APART if tidy.startswith("*") else before, APART if tidy.endswith("*") else after
        spelt = bare.encode()
        if bit:
            self.alphabet.update(spelt)
        first = tidy.startswith("^")
        for node in (self.opening, self.opening.children[0x20]) if first else (self.roots[before],):
            for depth, byte in enumerate(spelt, 1):
                node = node.children.setdefault(byte, _Node())
                node.begun |= bit
                node.half |= bit if 2 * depth >= len(spelt) else 0
            node.ends.append((bit, after))
        return len(spelt)

    # ---- bytes ------------------------------------------------------------------------------------

    def _number(self, active: frozenset[_Node], reading: int) -> int:
        if (active, reading) not in self.numbers:
            self.numbers[active, reading] = len(self.states)
            self.states.append((active, reading))
        return self.numbers[active, reading]

    def _fill(self, states: Iterable[int]) -> None:
        """Work out where the bytes lead from these."""
        for state in states:
            row, said = self._row(state)
            if (missing := len(self.states) - len(self.next)) > 0:
                grown = max(missing, len(self.next))
                self.next = np.pad(self.next, ((0, grown), (0, 0)))
                self.said, self.known = np.pad(self.said, ((0, grown), (0, 0))), np.pad(self.known, (0, grown))
            self.next[state], self.said[state], self.known[state] = row, said, True

    def _row(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        active, reading = self.states[state]
        readings = NEXT[reading]
        said, dead = np.zeros(256, dtype=np.int64), readings < 0
        for bit, after in (end for node in active for end in node.ends if end[1] != APART):  # does the word go on?
            over = after != LEADS
            said[over] |= bit
            dead = dead | (over & (bit == 0))
        plain = np.array([self._number(frozenset(), r) if r >= 0 else 0 for r in range(len(READINGS))])
        row = np.where(dead, 0, plain[readings])
        for byte, nodes in self._grown(active, reading).items():
            if not dead[byte]:
                ends = [bit for node in nodes for bit, after in node.ends if after == APART]
                said[byte] |= sum(set(ends))
                retained = frozenset(node for node in nodes if node.lasts)
                row[byte] = 0 if 0 in ends else self._number(retained, int(readings[byte]))
        return row, np.where(row == 0, 0, said)

    def _grown(self, active: frozenset[_Node], reading: int) -> dict[int, list[_Node]]:
        """Where the terms under way, and those that may begin here, have come to after each byte that continues one."""
        whole = isinstance(READINGS[reading], int)  # a term begins with a character, not inside one
        begin = [root for before, root in self.roots.items() if whole and (before == APART or before != reading)]
        found: dict[int, list[_Node]] = {}
        for node in (*active, *begin):
            for byte, child in node.children.items():
                found.setdefault(byte, []).append(child)
        return found

    def step(self, state: int, byte: int) -> tuple[int, int]:
        """The state after one more byte, and the required terms that it completes."""
        if state >= len(self.known) or not self.known[state]:
            self._fill([state])
        return int(self.next[state, byte]), int(self.said[state, byte])

    def under_way(self, state: int) -> tuple[int, int, int]:
        """The required terms of which in a state something is said, at least half, and all but for the end of the word;
        as bits."""
        begun = half = said = 0
        for node in self.states[state][0]:
            begun, half = begun | node.begun, half | node.half
            said |= sum({bit for bit, _ in node.ends})
        return begun, half, said

    def at_end(self, state: int) -> tuple[bool, int]:
        """Whether the text may end in a state, and the required terms that are complete then."""
        active, reading = self.states[state]
        ends = [bit for node in active for bit, after in node.ends if after != APART]
        may = state != 0 and isinstance(READINGS[reading], int) and 0 not in ends
        return may, sum(set(ends)) if may else 0

    # ---- tokens -----------------------------------------------------------------------------------

    def after(self, state: int) -> TermSteps:
        """Where each token leads from a state, passing through all its bytes; EOS and its like lead nowhere."""
        if state not in self.steps:
            spelt, lengths, order = self.vocabulary.matrix
            now, said = np.full(len(order), state, dtype=np.int32), np.zeros(len(order), dtype=np.int64)
            for i in range(spelt.shape[1]):
                live = int(np.searchsorted(-lengths, -i))  # tokens of more than i bytes come first
                reached = np.flatnonzero(np.bincount(now[:live]))
                self._fill(s for s in reached.tolist() if s >= len(self.known) or not self.known[s])
                said[:live] |= self.said[now[:live], spelt[:live, i]]
                now[:live] = self.next[now[:live], spelt[:live, i]]
            now[lengths == 0] = 0
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            self.steps[state] = TermSteps(now[back], np.where(now == 0, 0, said)[back])
        return self.steps[state]

    def follow(self, spelt: bytes) -> int:
        """The state after these bytes, from the start."""
        state = self.start
        for byte in spelt:
            state, _ = self.step(state, byte)
        return state

"""Automaton of required and forbidden terms, which reads bytes, so that it holds for every tokenisation.

All terms of a sentence are in one automaton (after Aho & Corasick 1975, with all matches kept instead of failure
links). Its states are numbered as they are first reached. State 0 is dead: a forbidden term is complete, or the bytes
are no text.

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
"""Most terms that one translation can be required to contain."""
_MARGIN = 8  # tokens to end a character, and a word that may not end


@dataclass(frozen=True)
class Terms:
    """The terms of a translation: one alternative of each required one, and none of the forbidden ones.

    A term counts as a whole word, or words: ``art`` is not in ``party``. An asterisk leaves an edge open: ``bater*``
    matches every word that begins so. A circumflex means that the translation begins with it. Scripts that write no
    spaces between words have no whole words; there a term counts wherever it occurs. Upper and lower case differ.
    """

    required: tuple[Alternatives, ...] = ()
    forbidden: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.required or self.forbidden)


@dataclass(eq=False)
class _Node:
    """A prefix of one or more terms, in bytes."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    started: int = 0
    """Required terms with this prefix, as bits."""
    half: int = 0
    """Required terms of which at least half is emitted, as bits."""
    ends: list[tuple[int, int]] = field(default_factory=list)
    """Terms that are complete here: (bit of the required term or 0 for a forbidden one, group of letters that must not
    follow)."""

    @property
    def matters(self) -> bool:
        """True where the next bytes can still complete a term."""
        return bool(self.children) or any(after != APART for _, after in self.ends)


@dataclass(frozen=True)
class TermSteps:
    """Effect of each token in one state."""

    state: Int[np.ndarray, " V"]
    emitted: Int[np.ndarray, " V"]
    """Required terms that the token completes, as bits."""


class Automaton:
    """The terms of one sentence; states and transitions are computed as they are needed."""

    def __init__(self, terms: Terms, vocabulary: SpelledVocabulary):
        if len(terms.required) > MOST:
            raise ConfigError(f"{len(terms.required)} terms are required of one translation: at most {MOST} can be")
        self.terms, self.vocabulary = terms, vocabulary
        self.count, self.all = len(terms.required), 2 ** len(terms.required) - 1
        self.roots = {before: _Node() for before in (APART, ALPHABETIC, INDIC)}
        """Roots of the terms, by the group of characters that must not stand before them."""
        self.opening = _Node(children={0x20: _Node()})
        """Root of the terms that must begin the translation, after the tokenizer's space or without it."""
        self.alphabet: set[int] = set()
        """Bytes that occur in required terms."""
        lengths = [[self._add(t, 1 << i) for t in alternatives] for i, alternatives in enumerate(terms.required)]
        self.room = _MARGIN + sum(max(each) + 2 for each in lengths)
        """Number of tokens that suffices for all required terms, from any state."""
        self.once = any(all(t.startswith("^") for t in alternatives) for alternatives in terms.required)
        """True where a term can only be emitted at the beginning."""
        for term in terms.forbidden:
            self._add(term, 0)

        self.numbers: dict[tuple[frozenset[_Node], int], int] = {}
        self.next = np.zeros((1, 256), dtype=np.int32)  # (A, 256)
        self.emitted = np.zeros((1, 256), dtype=np.int64)  # (A, 256): terms that a byte completes
        self.states: list[tuple[frozenset[_Node], int]] = [(frozenset(), -1)]
        self.known = np.ones(1, dtype=bool)  # (A,): whether the row of a state is computed
        self.steps: dict[int, TermSteps] = {}
        self.start = self._number(frozenset([self.opening]), APART)
        """State before the first byte, which may be the space that a tokenizer puts before the first word."""

    def _add(self, term: str, bit: int) -> int:
        """Add a term; return its length in bytes."""
        tidy = normalise(term)
        plain_term = normalise(tidy.removeprefix("^").removeprefix("*").removesuffix("*"))
        if not plain_term:
            raise ConfigError(f"{term!r}: a term must not be empty")
        self.vocabulary.spelt(plain_term)
        before, after = (group(edge.encode()) for edge in (plain_term[0], plain_term[-1]))
        before, after = APART if tidy.startswith("*") else before, APART if tidy.endswith("*") else after
        spelt = plain_term.encode()
        if bit:
            self.alphabet.update(spelt)
        first = tidy.startswith("^")
        for node in (self.opening, self.opening.children[0x20]) if first else (self.roots[before],):
            for depth, byte in enumerate(spelt, 1):
                node = node.children.setdefault(byte, _Node())
                node.started |= bit
                node.half |= bit if 2 * depth >= len(spelt) else 0
            node.ends.append((bit, after))
        return len(spelt)

    # ---- bytes ------------------------------------------------------------------------------------

    def _number(self, active: frozenset[_Node], utf8: int) -> int:
        """Return the number of a state, which is new where the state is."""
        if (active, utf8) not in self.numbers:
            self.numbers[active, utf8] = len(self.states)
            self.states.append((active, utf8))
        return self.numbers[active, utf8]

    def _fill(self, states: Iterable[int]) -> None:
        """Compute the transitions of these states."""
        for state in states:
            row, emitted = self._row(state)
            if (missing := len(self.states) - len(self.next)) > 0:
                grown = max(missing, len(self.next))
                self.next = np.pad(self.next, ((0, grown), (0, 0)))
                self.emitted, self.known = np.pad(self.emitted, ((0, grown), (0, 0))), np.pad(self.known, (0, grown))
            self.next[state], self.emitted[state], self.known[state] = row, emitted, True

    def _row(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the state after each byte, and the required terms that the byte completes."""
        active, utf8 = self.states[state]
        utf8_states = NEXT[utf8]
        emitted, dead = np.zeros(256, dtype=np.int64), utf8_states < 0
        for bit, after in (end for node in active for end in node.ends if end[1] != APART):  # ends with the word
            over = after != LEADS
            emitted[over] |= bit
            dead = dead | (over & (bit == 0))
        plain = np.array([self._number(frozenset(), r) if r >= 0 else 0 for r in range(len(READINGS))])
        row = np.where(dead, 0, plain[utf8_states])
        for byte, nodes in self._grown(active, utf8).items():
            if not dead[byte]:
                ends = [bit for node in nodes for bit, after in node.ends if after == APART]
                emitted[byte] |= sum(set(ends))
                retained = frozenset(node for node in nodes if node.matters)
                row[byte] = 0 if 0 in ends else self._number(retained, int(utf8_states[byte]))
        return row, np.where(row == 0, 0, emitted)

    def _grown(self, active: frozenset[_Node], utf8: int) -> dict[int, list[_Node]]:
        """Return, for each byte that continues a term, the nodes of the terms under way after it."""
        between = isinstance(READINGS[utf8], int)  # a term begins with a character, not inside one
        begin = [root for before, root in self.roots.items() if between and (before == APART or before != utf8)]
        found: dict[int, list[_Node]] = {}
        for node in (*active, *begin):
            for byte, child in node.children.items():
                found.setdefault(byte, []).append(child)
        return found

    def step(self, state: int, byte: int) -> tuple[int, int]:
        """Return the state after one more byte, and the required terms that it completes."""
        if state >= len(self.known) or not self.known[state]:
            self._fill([state])
        return int(self.next[state, byte]), int(self.emitted[state, byte])

    def under_way(self, state: int) -> tuple[int, int, int]:
        """Return, as bits, the required terms that are started in a state, at least half emitted, and complete but for
        the end of the word."""
        started = half = emitted = 0
        for node in self.states[state][0]:
            started, half = started | node.started, half | node.half
            emitted |= sum({bit for bit, _ in node.ends})
        return started, half, emitted

    def at_end(self, state: int) -> tuple[bool, int]:
        """Return whether the text may end in a state, and the required terms that are complete then."""
        active, utf8 = self.states[state]
        ends = [bit for node in active for bit, after in node.ends if after != APART]
        may = state != 0 and isinstance(READINGS[utf8], int) and 0 not in ends
        return may, sum(set(ends)) if may else 0

    # ---- tokens -----------------------------------------------------------------------------------

    def after(self, state: int) -> TermSteps:
        """Return the effect of each token in a state, through all its bytes; EOS and other special tokens lead to 0."""
        if state not in self.steps:
            spelt, lengths, order = self.vocabulary.matrix
            now, emitted = np.full(len(order), state, dtype=np.int32), np.zeros(len(order), dtype=np.int64)
            for i in range(spelt.shape[1]):
                live = int(np.searchsorted(-lengths, -i))  # tokens of more than i bytes come first
                reached = np.flatnonzero(np.bincount(now[:live]))
                self._fill(s for s in reached.tolist() if s >= len(self.known) or not self.known[s])
                emitted[:live] |= self.emitted[now[:live], spelt[:live, i]]
                now[:live] = self.next[now[:live], spelt[:live, i]]
            now[lengths == 0] = 0
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            self.steps[state] = TermSteps(now[back], np.where(now == 0, 0, emitted)[back])
        return self.steps[state]

    def follow(self, spelt: bytes) -> int:
        """Return the state after these bytes, from the start."""
        state = self.start
        for byte in spelt:
            state, _ = self.step(state, byte)
        return state

"""Bound on the number of tokens until all required terms are emitted and the text may end."""

from collections import deque
from collections.abc import Iterable

from dragoman.decode.constraints.terms import Automaton

NEVER = 2**30
_OTHERS = b" x\x80\x90\xa0"  # bytes to end a character or a word with, or to go on with one that may not end yet


class CompletionBound:
    """Bounds for the states of one automaton.

    A path is laid out in bytes: always to the nearest missing term, over the shortest route that completes no forbidden
    one. So the path from any place on a path is the rest of it. Then the bytes are divided into tokens.
    """

    def __init__(self, automaton: Automaton):
        self.automaton = automaton
        self.alphabet = sorted({*_OTHERS, *automaton.alphabet})
        self.longest = automaton.vocabulary.matrix[0].shape[1]
        self.steps: dict[int, dict[int, tuple[int, int]]] = {}
        """Transitions of each state explored: byte -> (state, terms completed)."""
        self.nearest: list[dict[int, tuple[int, int]]] = []
        """For each required term, and last for the end: state -> (bytes to go, first of these bytes)."""
        self.known: dict[tuple[int, int], int] = {}

    def tokens(self, state: int, emitted: int) -> int:
        """Return a number of tokens that suffices to emit the missing terms and end; NEVER where that is impossible.

        It need not be the lowest number, but it is safe: some token always leads to a place whose bound is one less.
        """
        if (state, emitted) not in self.known:
            self.explore([state])
            places, path = self._path(state, emitted)
            for i in range(len(path) - 1, -1, -1):
                ends = range(i + 1, min(len(path), i + self.longest) + 1)
                options = (self.known[places[end]] for end in ends if path[i:end] in self.automaton.vocabulary)
                self.known[places[i]] = min(NEVER, 1 + min(options, default=NEVER))
        return self.known[state, emitted]

    def _path(self, state: int, emitted: int) -> tuple[list[tuple[int, int]], bytes]:
        """Return the places on the path up to the first with a known bound, and the bytes between them."""
        places, path = [(state, emitted)], b""
        while places[-1] not in self.known:
            state, emitted = places[-1]
            may, last = self.automaton.at_end(state)
            if may and emitted | last == self.automaton.all:
                self.known[state, emitted] = 0
                break
            goals = [i for i in range(self.automaton.count) if not emitted >> i & 1] or [self.automaton.count]
            byte = min((self.nearest[i][state] for i in goals if state in self.nearest[i]), default=None)
            if byte is None:
                self.known[state, emitted] = NEVER
                break
            after, completed = self.steps[state][byte[1]]
            places.append((after, emitted | completed))
            path += bytes([byte[1]])
        return places, path

    def explore(self, states: Iterable[int]) -> None:
        """Explore all states reachable from ``states``, and find the shortest path from each to each term."""
        ahead = [state for state in states if state and state not in self.steps]
        if not ahead:
            return
        while ahead:
            now = ahead.pop()
            if now and now not in self.steps:
                found = {byte: self.automaton.step(now, byte) for byte in self.alphabet}
                self.steps[now] = {byte: step for byte, step in found.items() if step[0]}
                ahead += [after for after, _ in self.steps[now].values()]
        self.nearest = [self._distances(goal) for goal in range(self.automaton.count + 1)]

    def _distances(self, goal: int) -> dict[int, tuple[int, int]]:
        """Search breadth-first, backwards from the transitions that reach the goal; see ``nearest``."""
        before: dict[int, list[tuple[int, int]]] = {}
        for state, steps in self.steps.items():
            for byte, (after, _) in steps.items():
                before.setdefault(after, []).append((state, byte))
        distances: dict[int, tuple[int, int]] = {}
        for state, steps in self.steps.items():
            arriving = [byte for byte, (after, completed) in steps.items() if self._arrives(goal, after, completed)]
            if arriving:
                distances[state] = (1, arriving[0])
        waiting = deque(distances)
        while waiting:
            now = waiting.popleft()
            for state, byte in before.get(now, ()):
                if state not in distances:
                    distances[state] = (distances[now][0] + 1, byte)
                    waiting.append(state)
        return distances

    def _arrives(self, goal: int, after: int, completed: int) -> bool:
        return self.automaton.at_end(after)[0] if goal == self.automaton.count else bool(completed >> goal & 1)

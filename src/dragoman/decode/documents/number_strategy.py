"""A way for lines whose numbers or signs the model does not copy: they are asked for as placeholders."""

import dataclasses

from dragoman.decode.documents.placeholder_strategies import PlaceholderStrategy, StandIns
from dragoman.decode.documents.source_line import Ask, SourceLine
from dragoman.decode.translation import Translation
from dragoman.text.invariants import find_numbers


class NumbersHeld(PlaceholderStrategy):
    """The line with its numbers and signs as placeholders, where they did not come out otherwise."""

    def __init__(self, ways: list[PlaceholderStrategy]):
        self.ways = [way for way in ways if isinstance(way, StandIns)]

    def suits(self, line: SourceLine) -> bool:
        return line.checked and bool(find_numbers(line.words))

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        held = [dataclasses.replace(line, codes=(*line.codes, *find_numbers(line.words))) for line in lines]
        found: dict[SourceLine, Translation] = {}
        for way in self.ways:
            todo = [line for line in dict.fromkeys(held) if line not in found and way.suits(line)]
            for line, answer in zip(todo, way.answers(todo, ask) if todo else [], strict=True):
                if answer is not None and not line.changes_in(answer.text):
                    found[line] = answer
        return [found.get(line) for line in held]

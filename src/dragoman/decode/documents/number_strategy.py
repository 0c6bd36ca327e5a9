"""Strategy for lines whose numbers or signs the model does not copy: they are translated as placeholders."""

import dataclasses

from dragoman.decode.documents.placeholder_strategies import PlaceholderStrategy, PlaceholderSubstitution
from dragoman.decode.documents.source_line import Ask, SourceLine
from dragoman.decode.translation import Translation
from dragoman.text.invariants import find_numbers


class NumbersHeld(PlaceholderStrategy):
    """Treat numbers and signs of a line as placeholders, where they did not survive otherwise."""

    def __init__(self, strategies: list[PlaceholderStrategy]):
        self.strategies = [strategy for strategy in strategies if isinstance(strategy, PlaceholderSubstitution)]

    def suits(self, line: SourceLine) -> bool:
        return line.checked and bool(find_numbers(line.words))

    def answers(self, lines: list[SourceLine], ask: Ask) -> list[Translation | None]:
        held = [dataclasses.replace(line, codes=(*line.codes, *find_numbers(line.words))) for line in lines]
        found: dict[SourceLine, Translation] = {}
        for strategy in self.strategies:
            todo = [line for line in dict.fromkeys(held) if line not in found and strategy.suits(line)]
            for line, answer in zip(todo, strategy.answers(todo, ask) if todo else [], strict=True):
                if answer is not None and not line.changes_in(answer.text):
                    found[line] = answer
        return [found.get(line) for line in held]

"""Constraint builder: from requests to the rules, and for required terms the banked beam, that enforce them."""

from collections.abc import Sequence
from functools import lru_cache

import torch

from dragoman.decode.constraints.banked import in_banks
from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.completion_bound import NEVER, CompletionBound
from dragoman.decode.constraints.constrained import TermRule
from dragoman.decode.constraints.terms import Automaton, Terms
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request
from dragoman.decode.search.rule import Rule
from dragoman.decode.search.search import SearchConfig
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS


class ConstraintBuilder:
    """Rules for prefixes and terms, in one target vocabulary."""

    def __init__(self, vocabulary: SpelledVocabulary, first: int | None = None):
        """
        Args:
            first: id with which a rule begins every answer, before what is asked for here.
        """
        self.vocabulary, self.first = vocabulary, first
        self.tokens_for = lru_cache(maxsize=4096)(self._tokens_for)

    def check(self, request: Request, most: int | None) -> None:
        """Raise ConfigError where the constraints cannot be met, in ``most`` tokens or at all."""
        beginning, terms = self.beginning(request), _terms(request)
        if not (beginning or terms):
            return
        if unknown := [i for i in beginning.ids if not EOS <= i < len(self.vocabulary.spellings)]:
            raise ConfigError(f"prefix_ids: {unknown[0]} is no token of the target vocabulary")
        needed = len(beginning.ids) + len(beginning.rest) + (self.first is not None)
        if terms:
            needed += self.tokens_for(terms)
            prefix = b"".join(map(self.vocabulary.spelling, beginning.ids)) + beginning.rest
            if terms.forbidden and Automaton(terms, self.vocabulary).follow(prefix) == 0:
                raise ConfigError(f"the prefix {request.prefix!r} holds a forbidden term: change one of them")
        if most is not None and needed >= most:
            raise ConfigError(f"its prefix and terms take up to {needed} tokens, the model takes {most}: require less")

    def _tokens_for(self, terms: Terms) -> int:
        """Return a number of tokens that suffices for the terms."""
        automaton = Automaton(terms, self.vocabulary)
        if terms.forbidden and CompletionBound(automaton).tokens(automaton.start, 0) == NEVER:
            for alternatives in terms.required:
                single = Automaton(Terms((alternatives,), terms.forbidden), self.vocabulary)
                if CompletionBound(single).tokens(single.start, 0) == NEVER:
                    term = "|".join(alternatives)
                    raise ConfigError(f"the term {term!r} is required, and cannot be written without a forbidden one")
            raise ConfigError("the required terms cannot all be written without a forbidden one")
        return automaton.room

    def start(
        self, requests: Sequence[Request], cfg: SearchConfig, device: torch.device
    ) -> tuple[SearchConfig, list[Rule]]:
        """Return the search and the rules for a batch; without constraints the search stays as it is."""
        rules, after = list[Rule](), {"after_first": self.first is not None}
        beginnings, terms = [self.beginning(request) for request in requests], [_terms(request) for request in requests]
        if any(beginnings):
            rules.append(ForcedBeginning(beginnings, self.vocabulary, device, **after))
        if any(terms):
            rule = TermRule(terms, self.vocabulary, device, **after)
            rules.append(rule)
            if rule.count:
                cfg = in_banks(cfg, rule)
        return cfg, rules

    def beginning(self, request: Request) -> Beginning:
        """Return the prefix of a request, without the first token that every answer has."""
        ids = request.prefix_ids
        ids = ids[1:] if self.first is not None and ids[:1] == (self.first,) else ids
        return Beginning(ids, self.vocabulary.spelt(request.prefix) if request.prefix else b"")


def _terms(request: Request) -> Terms:
    return Terms(request.required, request.forbidden)

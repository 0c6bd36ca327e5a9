"""From what is asked of translations to the rules, and where terms are required the beam, that see to it."""

from collections.abc import Sequence
from functools import lru_cache

import torch

from dragoman.decode.constraints.beginning import Beginning, ForcedBeginning
from dragoman.decode.constraints.completion_bound import NEVER, CompletionBound
from dragoman.decode.constraints.constrained import BankedBeam, TermRule
from dragoman.decode.constraints.terms import Automaton, Terms
from dragoman.decode.constraints.vocabulary import SpelledVocabulary
from dragoman.decode.request import Request
from dragoman.decode.search.beam import Beam, Gnmt
from dragoman.decode.search.greedy import Greedy
from dragoman.decode.search.rule import Rule
from dragoman.decode.search.search import SearchConfig
from dragoman.errors import ConfigError
from dragoman.text.tokens.tokenizer import EOS


class ConstraintBuilder:
    def __init__(self, vocabulary: SpelledVocabulary):
        self.vocabulary = vocabulary
        self.sayable = lru_cache(maxsize=4096)(self._sayable)

    def check(self, request: Request, most: int | None) -> None:
        """Raise ConfigError where what is asked cannot be, in ``most`` tokens or at all."""
        beginning, terms = self.beginning(request), _terms(request)
        if not (beginning or terms):
            return
        if unknown := [i for i in beginning.ids if not EOS <= i < len(self.vocabulary.spellings)]:
            raise ConfigError(f"prefix_ids: {unknown[0]} is no token of the target vocabulary")
        needed = len(beginning.ids) + len(beginning.rest)
        if terms:
            needed += self.sayable(terms)
            said = b"".join(map(self.vocabulary.spelling, beginning.ids)) + beginning.rest
            if terms.forbidden and Automaton(terms, self.vocabulary).follow(said) == 0:
                raise ConfigError(f"the prefix {request.prefix!r} holds a forbidden term: change one of them")
        if most is not None and needed >= most:
            raise ConfigError(
                f"its prefix and terms take up to {needed} tokens, the model takes {most}: ask for less of it"
            )

    def _sayable(self, terms: Terms) -> int:
        """Tokens that are enough for the terms."""
        automaton = Automaton(terms, self.vocabulary)
        if terms.forbidden and CompletionBound(automaton).tokens(automaton.start, 0) == NEVER:
            for alternatives in terms.required:
                alone = Automaton(Terms((alternatives,), terms.forbidden), self.vocabulary)
                if CompletionBound(alone).tokens(alone.start, 0) == NEVER:
                    term = "|".join(alternatives)
                    raise ConfigError(f"the term {term!r} is required, and cannot be said without a forbidden one")
            raise ConfigError("the required terms cannot all be said without a forbidden one")
        return automaton.room

    def start(
        self, asked: Sequence[Request], cfg: SearchConfig, device: torch.device
    ) -> tuple[SearchConfig, list[Rule]]:
        """The search and the rules for a batch; those that are asked for nothing are searched as ever."""
        rules: list[Rule] = []
        beginnings, terms = [self.beginning(request) for request in asked], [_terms(request) for request in asked]
        if any(beginnings):
            rules.append(ForcedBeginning(beginnings, self.vocabulary, device))
        if any(terms):
            rule = TermRule(terms, self.vocabulary, device)
            rules.append(rule)
            if rule.count:
                cfg = _in_banks(cfg, rule)
        return cfg, rules

    def beginning(self, request: Request) -> Beginning:
        return Beginning(request.prefix_ids, self.vocabulary.spelt(request.prefix) if request.prefix else b"")


def _terms(request: Request) -> Terms:
    return Terms(request.required, request.forbidden)


def _in_banks(cfg: SearchConfig, rule: TermRule) -> SearchConfig:
    """Greedy search as a beam of one; samples and the like keep the terms as the rule makes them.

    Longer ones are favoured less than usual: were the log-probability divided by the length, rambling on would make up
    for an unlikely term.
    """
    if isinstance(cfg, Greedy):
        return BankedBeam(size=1, penalty=Gnmt(), limit=cfg.limit, rule=rule)
    if type(cfg) is Beam:
        kept = {"size": cfg.size, "stop": cfg.stop, "nbest": cfg.nbest, "limit": cfg.limit}
        return BankedBeam(**kept, penalty=Gnmt(), rule=rule)
    return cfg

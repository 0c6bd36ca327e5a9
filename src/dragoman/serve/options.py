"""Options of requests to a service."""

from dataclasses import dataclass

from dragoman.decode.constraints.glossary import Glossary
from dragoman.decode.constraints.repetition import RuleConfig
from dragoman.decode.search.search import SearchConfig


@dataclass(frozen=True)
class TranslateOptions:
    """Options of a translation; the defaults are those of ``dragoman translate``."""

    search: SearchConfig | None = None
    """None for the search that came with an imported model, or else a beam of 5."""
    rules: tuple[RuleConfig, ...] | None = None
    glossary: Glossary | None = None
    alignments: bool = False
    check_numbers: bool = True
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerateOptions:
    """Options of a continuation; see ``Generator.generate``. None stands for what the model's own settings say."""

    search: SearchConfig | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()
    rules: tuple[RuleConfig, ...] | None = None
    seeds: tuple[int, ...] | None = None
    likeliest: int = 0
    """Number of the most probable tokens of each step that a stream tells of."""

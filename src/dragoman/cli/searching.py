"""Searches and rules as options: a kind, or a kind with its settings, as in a run file."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.constraints.repetition import RuleConfig
    from dragoman.decode.search.search import SearchConfig

SearchOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="How to search, in full: greedy, 'beam: {size: 8}', 'sample: {typical: 0.9}', speculative, ...",
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TAG", help="To stand before each source, as 2de did in training (see tags); may be repeated."
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="K",
        help="Sentences of the document read before each; default: as many as the run has learnt to (data.context).",
    ),
]
RuleOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND", help="What may not be said, any number of them: 'no_repeat: {tokens: 3}', repetition_penalty."
    ),
]
SampleOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Draw N answers at random; equal ones are shown once.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Sampling: below 1 less is risked, above 1 more; 0 is greedy.")
]
TopKOption = Annotated[int | None, typer.Option(help="Sampling: only from the likeliest K tokens.")]
TopPOption = Annotated[float | None, typer.Option(help="Sampling: only from the likeliest tokens that make up P.")]
MinPOption = Annotated[
    float | None, typer.Option(help="Sampling: only from tokens at least P times as likely as the likeliest.")
]
SeedOption = Annotated[int | None, typer.Option(help="Sampling: another seed, other answers.")]


def chosen_search(search: str | None, **sampling: float | None) -> "SearchConfig | None":
    """The search that the options ask for, None where they say nothing.

    Raises:
        ConfigError: no such search, a setting it does not have, or sampling settings beside another search.
    """
    from dragoman.config import from_dict, kind_of, to_dict
    from dragoman.decode.search.sample import Sample
    from dragoman.decode.search.search import SearchConfig

    given = {name: value for name, value in sampling.items() if value is not None}
    cfg = None if search is None else from_dict(SearchConfig, _choice(search, "--search"), "--search")
    if not given:
        return cfg
    if cfg is not None and not isinstance(cfg, Sample):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"{options}: for sampling, and --search asks for {kind_of(type(cfg))}: give one of them")
    return from_dict(Sample, to_dict(cfg or Sample()) | given, "sampling")


def chosen_rules(rules: Iterable[str] | None) -> "list[RuleConfig]":
    """Raises ConfigError: no such rule, or a setting it does not have."""
    from dragoman.config import from_dict
    from dragoman.decode.constraints.repetition import RuleConfig

    return [from_dict(RuleConfig, _choice(rule, "--rule"), "--rule") for rule in rules or ()]


def _choice(text: str, option: str) -> Any:
    """``KIND``, ``KIND: {...}`` and ``{kind: KIND, ...}`` as plain data."""
    from dragoman.config import load_yaml

    data = load_yaml(text, where=option)
    if isinstance(data, dict) and len(data) == 1 and "kind" not in data:
        [(kind, settings)] = data.items()
        return {"kind": kind} | settings if isinstance(settings, dict) else kind
    return data

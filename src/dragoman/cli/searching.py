"""Search and rule options: a kind, or a kind with its settings, as in a run file."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.constraints.repetition import RuleConfig
    from dragoman.decode.knn import NearestNeighbours
    from dragoman.decode.search.search import SearchConfig

SearchOption = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="The search with its settings: greedy, 'beam: {size: 8}', 'sample: {typical: 0.9}', speculative, ...",
    ),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TAG", help="A tag to put before each source, as in training (such as 2de; see tags); may be repeated."
    ),
]
ContextOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="K",
        help="Sentences of the document read before each; default: as many as in training (data.context).",
    ),
]
RuleOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KIND",
        help="A constraint on the output, such as 'no_repeat: {tokens: 3}' or repetition_penalty; may be repeated.",
    ),
]
SampleOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Draw N outputs at random; equal ones are shown once.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Sampling: below 1 sharpens, above 1 flattens the distribution; 0 is greedy.")
]
TopKOption = Annotated[int | None, typer.Option(help="Sampling: only from the likeliest K tokens.")]
TopPOption = Annotated[
    float | None, typer.Option(help="Sampling: only from the likeliest tokens whose probabilities sum to P.")
]
MinPOption = Annotated[
    float | None, typer.Option(help="Sampling: only from tokens at least P times as likely as the likeliest.")
]
SeedOption = Annotated[int | None, typer.Option(help="Sampling: seed of the random draws.")]


def chosen_search(search: str | None, *, beam: int | None = None, **sampling: float | None) -> "SearchConfig | None":
    """Return the search that the options choose; None without options other than ``beam``.

    Raises:
        ConfigError: no such search, a setting it does not have, sampling settings with another search, or ``beam`` with
            any of the others.
    """
    from dragoman.config import from_dict, kind_of, to_dict
    from dragoman.decode.search.sample import Sample
    from dragoman.decode.search.search import SearchConfig

    given = {name: value for name, value in sampling.items() if value is not None}
    options = ", ".join(f"--{name.replace('_', '-')}" for name in given).replace("--samples", "--sample")
    if beam is not None and (search is not None or given):
        raise ConfigError(f"--beam: chooses beam search, and {options or '--search'} another: give one of them")
    cfg = None if search is None else from_dict(SearchConfig, _choice(search, "--search"), "--search")
    if not given:
        return cfg
    if cfg is not None and not isinstance(cfg, Sample):
        raise ConfigError(f"{options}: for sampling, but --search is {kind_of(type(cfg))}: give one of them")
    return from_dict(Sample, to_dict(cfg or Sample()) | given, "sampling")


KnnOption = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        help="A datastore (dragoman datastore) whose nearest states vote; or its settings, as in "
        "'{store: STORE, k: 8, temperature: 10, weight: 0.25}'.",
    ),
]


def chosen_neighbours(knn: str | None) -> "NearestNeighbours | None":
    """Return the settings that --knn chooses, for a datastore with defaults or in full; None without the option.

    Raises:
        ConfigError: a setting that does not exist, or a wrong value.
    """
    from dragoman.config import from_dict, load_yaml
    from dragoman.decode.knn import NearestNeighbours

    if knn is None:
        return None
    given = load_yaml(knn, where="--knn") if knn.lstrip().startswith("{") else {"store": knn}
    return from_dict(NearestNeighbours, given, "--knn")


def chosen_rules(rules: Iterable[str] | None) -> "list[RuleConfig]":
    """Return the rules that the options choose.

    Raises:
        ConfigError: no such rule, or a setting it does not have.
    """
    from dragoman.config import from_dict
    from dragoman.decode.constraints.repetition import RuleConfig

    return [from_dict(RuleConfig, _choice(rule, "--rule"), "--rule") for rule in rules or ()]


def _choice(text: str, option: str) -> Any:
    """Parse ``KIND``, ``KIND: {...}`` or ``{kind: KIND, ...}`` into plain data."""
    from dragoman.config import load_yaml

    data = load_yaml(text, where=option)
    if isinstance(data, dict) and len(data) == 1 and "kind" not in data:
        [(kind, settings)] = data.items()
        return {"kind": kind} | settings if isinstance(settings, dict) else kind
    return data

"""Glossaries of `dragoman translate`: --terms, --forbid and --inflect."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dragoman.cli.run_languages import languages_of_run
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.constraints.glossary import Glossary

TermsOption = Annotated[
    Path | None,
    typer.Option(
        help="A glossary: a .tsv or .csv with columns source, target (a|b for alternatives), forbidden; or a .tbx "
        "termbase."
    ),
]
ForbidOption = Annotated[
    list[str] | None, typer.Option(metavar="TERM", help="A term that no translation may contain; may be repeated.")
]
InflectOption = Annotated[
    bool,
    typer.Option(
        "--inflect",
        help="Also accept inflected forms of the terms, in the languages --from and --to (extra: inflections).",
    ),
]


class WantedTerms(NamedTuple):
    """Options about terms, with the languages that they are in."""

    terms: Path | None
    forbid: Sequence[str]
    inflect: bool
    source: str | None
    target: str | None


def read_glossary(wanted: WantedTerms, run: Path) -> "Glossary | None":
    """Return the glossary of the options; None where there are none. Languages that are not named are the run's.

    Raises:
        ConfigError, DataError: as ``Glossary.read``; or --inflect without --terms.
    """
    from dragoman.decode.constraints.glossary import Glossary

    if wanted.terms is None:
        if wanted.inflect:
            raise ConfigError("--inflect: is for the terms of a glossary: name one with --terms")
        return Glossary(forbidden=wanted.forbid) if wanted.forbid else None
    source, target = languages_of_run(run)
    return Glossary.read(
        wanted.terms,
        wanted.forbid,
        source=wanted.source or source,
        target=wanted.target or target,
        inflected=wanted.inflect,
    )

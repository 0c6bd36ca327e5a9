"""Safety page of commands: rules on what is asked and answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.cli.document import Given
    from dragoman.decode.documents.line_translation import LineTranslator
    from dragoman.serve.safety.lines import GuardedLines
    from dragoman.serve.safety.page import SafetyPage

SafetyOption = Annotated[
    Path | None,
    typer.Option(
        "--safety",
        metavar="FILE",
        help="A .yaml page of rules that refuse lines, hand them over to people, or translate them more safely.",
    ),
]


def read_safety_page(path: Path | None, documents: "Sequence[Given]") -> "SafetyPage | None":
    """Read a safety page, if one is named.

    Raises:
        ConfigError: it is no such page, or it is for a document, whose texts it would not see.
    """
    if path is None:
        return None
    from dragoman.serve.safety.page import SafetyPage

    if documents:
        raise ConfigError(f"{documents[0].name}: a document, and --safety is for lines of text: leave it out")
    return SafetyPage.read(path)


def guarded(lines: "LineTranslator", page: "SafetyPage | None") -> "LineTranslator | GuardedLines":
    """Return the translator behind the page, if there is one."""
    if page is None:
        return lines
    from dragoman.serve.safety.lines import GuardedLines

    return GuardedLines(lines, page)

"""dragoman claims: published claims, and what the results of studies say of them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import writable_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dragoman.compare.claim_forms import ClaimVerdict
    from dragoman.compare.claims import Claim


def claims(
    results: Annotated[
        Path | None, typer.Option(help="Folder with results (JSON) of studies; default: those of the package.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--claims", help="File of claims (YAML); default: that of the package.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the page of claims, Markdown, here.", callback=writable_file),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(help="Write the page of all studies, Markdown, here.", callback=writable_file),
    ] = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="Write the page of each result beside it anew, such as after an update.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object for each claim.")] = False,
) -> None:
    """Judge published claims by the results of studies: holds, holds partly, does not hold here, cannot be tested.

    dragoman claims

    dragoman claims -o docs/claims.md --gallery docs/studies.md --pages
    """
    from dragoman import durable
    from dragoman.compare.claims import judge, read_all_results, read_claims
    from dragoman.compare.page.study_page import study_page
    from dragoman.compare.published import write_claims, write_gallery
    from dragoman.compare.study import RESULTS, SHIPPED
    from dragoman.errors import DataError

    folder = results or RESULTS
    if results is not None and not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    given, found = read_claims(file or SHIPPED / "claims.yaml"), read_all_results(folder)
    if results is not None and not found:
        raise DataError(f"{folder}: no results of studies (JSON) in it")
    verdicts = [judge(claim, found) for claim in given]
    if output is not None:
        write_claims(output, given, verdicts, found)
    if gallery is not None:
        write_gallery(gallery, given, verdicts, found)
    if pages:
        for name, result in found.items():
            durable.replace(folder / f"{name}.html", study_page(result).encode())
    if as_json:
        for claim, verdict in zip(given, verdicts, strict=True):
            record = {"id": claim.id, "claim": claim.claim, "verdict": verdict.verdict, "ours": verdict.ours}
            print(json.dumps(record | {"why": verdict.why}, ensure_ascii=False))
    elif output is None and gallery is None and not pages:
        _show(given, verdicts)


def _show(claims: "Sequence[Claim]", verdicts: "Sequence[ClaimVerdict]") -> None:
    from rich.markup import escape

    from dragoman.cli.compare_screen import table
    from dragoman.cli.terminal import console

    shown = table("claim", "study", "verdict", words=3)
    for claim, verdict in zip(claims, verdicts, strict=True):
        shown.add_row(escape(claim.claim), claim.study or "", escape(f"{verdict.verdict}: {verdict.why}".strip(": ")))
    console().print(shown)

"""dragoman verify: equality of a run's answers across caches, batches, orders and kernels."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.cli.options import CheckpointOption, DeviceOption, RunArgument
from dragoman.cli.output import OutputFormat
from dragoman.decode.defaults import BEAM
from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.decode.verify.checks import Check
    from dragoman.decode.verify.opening import VerifiableRun


def verify(
    run: RunArgument,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file; default: the run's own test or validation set, without one random inputs."),
    ] = None,
    sentences: Annotated[int, typer.Option(min=1, help="Largest number of examples.")] = 100,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"For models that write: hypotheses kept in beam search; 1 skips it; default: {BEAM}."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 32,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="For models that write: most tokens of an answer; default: translate's limit, 32 to continue."
        ),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compiled", help="Compile the model, too; takes a minute.")] = False,
    format: Annotated[OutputFormat, typer.Option(help="text: a table; json: an object a line.")] = OutputFormat.text,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
) -> None:
    """Count how many answers are the same alone and in batches, padded, in another order, with every cache and kernel.

    For every kind of model. Exit code 1 when an answer differs that must not. Caches of lower precision are counted,
    not judged.
    """
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.verify.checks import run_checks
    from dragoman.decode.verify.opening import open_run

    runs = open_run(
        run,
        checkpoint,
        text=text,
        examples=sentences,
        device=device,
        beam=beam,
        max_new_tokens=max_new_tokens,
        batch=batch,
        compiled=compiled,
    )
    for note in {verifiable.note: None for verifiable in runs if verifiable.note}:
        print(f"dragoman: {note}", file=sys.stderr)
    found = []
    for verifiable in runs:
        with progress_bar("verifying", len(verifiable.verifier.questions())) as progress:
            found.append((verifiable, list(run_checks(verifiable.verifier, progress))))
    checks = [check for _, part_checks in found for check in part_checks]
    if format is OutputFormat.json:
        _print_json(checks)
    else:
        _print_table(checks)
        for verifiable, part_checks in found:
            _print_failures(part_checks, verifiable)
        _print_count(checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _print_json(checks: "Sequence[Check]") -> None:
    from dataclasses import asdict

    for check in checks:
        print(json_text(asdict(check) | {"passed": check.passed}))


def _print_table(checks: "Sequence[Check]") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("asked", "compared", "the same", "difference", ""):
        table.add_column(heading, justify="right" if heading in ("the same", "difference") else "left")
    for check in checks:
        counts = "" if check.skipped else f"{check.same:,} of {check.of:,}"
        difference = "" if check.skipped else f"{check.difference:.1e}"
        table.add_row(check.name, check.searched, counts, difference, _verdict(check))
    console().print(table)


def _verdict(check: "Check") -> str:
    if check.skipped:
        from rich.markup import escape

        return f"[dim]left out: {escape(check.skipped)}[/dim]"
    if not check.exact:
        return "[dim]rounds: not judged[/dim]"
    return "" if check.passed else "[bold red]differs[/bold red]"


def _print_failures(checks: "Sequence[Check]", opened: "VerifiableRun") -> None:
    from dragoman.cli.terminal import console

    def described(ids: tuple[int, ...]) -> str:
        with suppress(Exception):  # even with a broken tokenizer the ids can be shown
            assert opened.tokenizer
            return repr(opened.tokenizer.decode(list(ids[:-1])))
        return str(list(ids))

    for check in checks:
        if check.passed:
            continue
        assert check.failure is not None
        row, wanted, got, difference = (
            check.failure.row,
            check.failure.wanted,
            check.failure.got,
            check.failure.difference,
        )
        description = f"the reference says {described(wanted)}, this says {described(got)}"
        if difference is not None:
            description = (
                f"{described(wanted)}: differs by {difference:.1e}" if wanted else f"differs by {difference:.1e}"
            )
        quoted = f" ({opened.texts[row - 1]!r})" if opened.texts else ""
        console(errors=True).print(
            f"{check.name}, {check.searched}: example {row}{quoted}: {description}", markup=False
        )


def _print_count(checks: "Sequence[Check]") -> None:
    from dragoman.cli.terminal import console

    judged = [check for check in checks if check.exact]
    console().print(f"\n{sum(check.passed for check in judged)} of {len(judged)} hold.")

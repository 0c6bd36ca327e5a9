"""dragoman doctor: wiring mistakes in a model, found by evidence."""

from typing import TYPE_CHECKING, Annotated

import typer

from dragoman.json_files import json_text

if TYPE_CHECKING:
    from dragoman.inspect.doctor.finding import Finding, Report

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold"}
LABELS = ("where", "evidence", "cause", "remedy")


def doctor(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN | CONFIG.yaml | MODULE:NAME",
            help="A run, a run file, a preset, or a model: MODULE:NAME of a torch.nn.Module or of a function that "
            "builds one, with modules of the current folder.",
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Settings over a run file or preset.")
    ] = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="A batch, or a function that makes one: a tensor, a tuple of arguments (labels last), or a dictionary "
            "of arguments. Default: guessed for models of transformers, PyTorch and this package.",
        ),
    ] = None,
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--bidirectional", help="The model writes, or it reads both ways; default: inferred."),
    ] = None,
    pad: Annotated[int | None, typer.Option(help="Id of padding; default: padding_idx of the embedding.")] = None,
    batch_dim: Annotated[
        int | None, typer.Option(min=0, max=1, help="Dimension of the rows of a batch; default: inferred.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME", help="Your loss: a function of model and batch; returns it, or a sum and a count."
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME", help="A function of the model that returns an optimizer, or it and its scheduler."
        ),
    ] = None,
    facts: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="A dictionary of what else is known: tokenizer, texts, train, test, accumulate, rates.",
        ),
    ] = None,
    check: Annotated[
        list[str] | None, typer.Option(help="Make this check alone, by its name; may be given several times.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object a line, one for each model.")] = False,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint of a run: best, last, a step, or a name.")] = "best",
) -> None:
    """Test any PyTorch model for wiring mistakes: leaks, masks, positions, norms, heads, caches, labels, and others.

    Reports evidence, severity, likely cause, remedy and place. Exit code 1 when there is an error; warnings and notes
    leave it 0.
    """
    from dragoman.cli.terminal import progress_bar
    from dragoman.inspect.doctor.examination import check_names, examine
    from dragoman.inspect.doctor.opening import open_models

    check_names(check)
    opened = open_models(
        _resolved(what),
        overrides or [],
        checkpoint=checkpoint,
        inputs=inputs,
        loss=loss,
        optimizer=optimizer,
        facts=facts,
    )
    errors = 0
    for each in opened:
        with progress_bar("examining", None) as progress:
            report = examine(
                each.model,
                each.batch,
                causal=causal,
                pad=pad,
                batch_dim=batch_dim,
                checks=check,
                progress=progress,
                facts=each.facts,
            )
        _print_json(report, each.name) if as_json else _print_report(report, each.name)
        errors += len(report.errors)
    if errors:
        raise typer.Exit(1)


def _resolved(what: str) -> str:
    """Return the only run in a folder of runs."""
    from pathlib import Path

    from dragoman.cli.options import resolve_run

    return str(resolve_run(Path(what))) if Path(what).is_dir() else what


def _print_json(report: "Report", part: str) -> None:
    print(json_text(report.to_dict() | ({"part": part} if part else {})))


def _print_report(report: "Report", part: str) -> None:
    from dragoman.cli.terminal import console

    out = console()
    heading = f"{report.model}, {report.parameters:,} parameters" + (f" ({part})" if part else "")
    out.print(heading, style="bold", markup=False, highlight=False)
    for finding in report.findings:
        _print_finding(finding)
    if report.passed:
        out.print(f"\npassed     {', '.join(report.passed)}", markup=False, highlight=False)
    for skipped in report.skipped:
        out.print(f"left out   {skipped.check}: {skipped.reason}", style="dim", markup=False, highlight=False)
    counts = [(len(report.of(kind)), kind) for kind in dict.fromkeys(f.severity for f in report.findings)]
    said = ", ".join(f"{count} {kind.value}{'s' * (count != 1)}" for count, kind in counts)
    out.print(f"\n{said or 'Nothing found'}.", markup=False, highlight=False)


def _print_finding(finding: "Finding") -> None:
    from rich.table import Table
    from rich.text import Text

    from dragoman.cli.terminal import console

    out = console()
    title = Text.assemble(
        "\n", (f"{finding.severity.value:<10}", STYLES[finding.severity.value]), f" {finding.title} [{finding.check}]"
    )
    out.print(title, highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", min_width=9)
    table.add_column(overflow="fold")
    for label in LABELS:
        table.add_row(label, Text(getattr(finding, label)))
    out.print(table)

"""dragoman evaluate, for a run whose model only reads: its figures beside a baseline's."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.evaluate.outcome import EvaluationResult, Evaluator

MOST_LABELS = 12
"""Largest number of labels in the confusion table; with more it is too wide for a terminal, and only in scores.json."""


def run_evaluation(
    kind: "type[Evaluator]", run: Path, named: str | None, *, checkpoint: str, device: str, name: str | None
) -> "EvaluationResult":
    """Evaluate a run's model on its task, and store the outcome."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import progress_bar
    from dragoman.evaluate.folders import corpus_id, folder_for
    from dragoman.train.report import page as report

    evaluator = kind(run, checkpoint, device=device)
    examples = evaluator.examples(named)
    with progress_bar(evaluator.verb, len(examples)) as progress:
        outcome = evaluator.evaluate(examples, progress=progress)
    outcome = replace(outcome, test_set=corpus_id(named))
    outcome.save(folder_for(run, named, name))
    report.write(RunDirectory.open(run))
    return outcome


def show(outcome: "EvaluationResult") -> None:
    """Print the scores of the model and of the baseline."""
    from rich.markup import escape

    from dragoman.cli.terminal import console

    table = _table("", "metric", "score", "95% interval", right=("score", "95% interval"))
    for who, scores in (("model", outcome.scores), (outcome.baseline_name, outcome.baseline)):
        for score in scores.values():
            low, high = score.interval
            table.add_row(
                escape(who), escape(score.name), f"[bold]{score.value:.1f}[/bold]", f"{low:.1f} to {high:.1f}"
            )
    console().print(table)
    if "confusion" in outcome.details and len(outcome.details["labels"]) <= MOST_LABELS:
        console().print()
        console().print(_confusion(**outcome.details))


def _confusion(labels: list[str], confusion: list[list[int]], by_label: dict[str, float]) -> Any:
    from rich.markup import escape

    table = _table("label, taken for:", *labels, "F1", right=(*labels, "F1"))
    for label, row in zip(labels, confusion, strict=True):
        found = by_label.get(label)
        table.add_row(escape(label), *(f"{count:,}" for count in row), "-" if found is None else f"{found:.1f}")
    return table


def _table(*headings: str, right: tuple[str, ...]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(escape(heading), justify="right" if heading in right else "left")
    return table

"""dragoman evaluate: how well a run does what it was trained for."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dragoman.cli.options import (
    CheckpointOption,
    DeviceOption,
    OwnRunArgument,
    PrecisionOption,
    folder_name,
    name_of_file,
)
from dragoman.cli.searching import ContextOption, SearchOption, TagOption, chosen_search
from dragoman.cli.sources import ColumnsOption, parsed_columns
from dragoman.errors import ConfigError

if TYPE_CHECKING:
    from dragoman.decode.search.search import SearchConfig
    from dragoman.evaluate.evaluation import Evaluation


def evaluate(
    run: OwnRunArgument,
    pairs: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEST_SET]",
            help="A file as the task has them: pairs, labelled texts, a folder of images, ...; "
            "default: the run's own test set.",
        ),
    ] = None,
    columns: ColumnsOption = None,
    beam: Annotated[int, typer.Option(min=1, help="Hypotheses kept at each step; 1 is greedy.")] = 5,
    search: SearchOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="For translation, may be repeated: bleu, chrf, ter, exact_match, bleu_lowercase_tokenized, "
            "bleu_lowercase_as_given (text that comes in tokens); default: all but ter and the last.",
        ),
    ] = None,
    tag: TagOption = None,
    context: ContextOption = None,
    checkpoint: CheckpointOption = "best",
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    name: Annotated[
        str | None,
        typer.Option(help="Folder under RUN/evaluations; default: the name of the test set.", callback=folder_name),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Score every checkpoint while another process trains, until that ends; default: the validation set.",
        ),
    ] = False,
) -> None:
    """Score a run on a test set, with intervals; outputs are kept. Translators: BLEU, chrF and more, by source length.
    Models that read and write nothing: the figures of their task, with those of a baseline beside."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli import evaluate_reader
    from dragoman.cli import follow as following
    from dragoman.evaluate.examiners import EXAMINERS

    if examiner := EXAMINERS.get(RunDirectory.open(run).config.get("task", {}).get("kind", "")):
        if columns is not None:
            raise ConfigError("--columns: is for translators; name the columns of this table in its first row")
        if follow:
            following.follow(run, pairs, name=name, examine=following.reading(examiner, pairs, device=device))
            return
        found = evaluate_reader.evaluated(examiner, run, pairs, checkpoint=checkpoint, device=device, name=name)
        evaluate_reader.show(found)
        return
    how: dict[str, Any] = {"beam": beam, "search": chosen_search(search), "metrics": metric, "tags": tag or []}
    how["columns"] = parsed_columns(columns)
    options: dict[str, Any] = {"device": device, "precision": precision, "context": context}
    if follow:
        following.follow(run, pairs, name=name, examine=following.translating(run, pairs, **how, **options))
        return
    show(evaluated(run, pairs, name=name, **how, which=checkpoint, **options))


def evaluated(
    run: Path,
    pairs: str | None,
    *,
    beam: int = 5,
    search: "SearchConfig | None" = None,
    metrics: list[str] | None = None,
    tags: Sequence[str] = (),
    columns: tuple[str, str] | None = None,
    name: str | None = None,
    **options: Any,
) -> "Evaluation":
    """``options`` are those of ``Translator.load``."""
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import tracked
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.evaluation import USUAL, evaluate
    from dragoman.evaluate.given import pairs_for
    from dragoman.train import report

    directory = RunDirectory.open(run)  # a run that is not there is told as one
    translator = Translator.load(run, **options)  # first: of a run that does something else, that is what to say
    test = pairs_for(run, pairs, tags, columns=columns)
    with tracked("translating", len(test)) as progress:
        folder = run / "evaluations" / (name or name_of_file(pairs, "test"))
        evaluation = evaluate(
            translator, test, folder=folder, beam=beam, search=search, metrics=metrics or USUAL, progress=progress
        )
    report.write(directory)  # which shows the figures of every evaluation
    return evaluation


def show(evaluation: "Evaluation") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("95% interval", justify="right")
    table.add_column("signature", overflow="fold")
    for score in evaluation.scores.values():
        low, high = score.interval
        table.add_row(
            score.name, f"[bold]{score.value:.1f}[/bold]", f"{low:.1f} to {high:.1f}", f"[dim]{score.signature}[/dim]"
        )
    console().print(table)
    by_length = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("source words", "sentences", *(score.name for score in evaluation.scores.values())):
        by_length.add_column(heading, justify="right")
    for bucket in evaluation.by_length:
        words = f"{bucket.shortest} to {bucket.longest}" if bucket.longest else f"{bucket.shortest} and more"
        by_length.add_row(words, f"{bucket.sentences:,}", *(f"{score.value:.1f}" for score in bucket.scores.values()))
    console().print()
    console().print(by_length)

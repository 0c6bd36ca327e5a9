"""dragoman evaluate, for a run whose model continues text: perplexity per token, byte and word."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.cli.comparison import show_comparison

if TYPE_CHECKING:
    from dragoman.cli.follow import ScoreCheckpoint
    from dragoman.evaluate.language_modelling import LanguageModelEvaluation
    from dragoman.evaluate.metrics import Comparison
    from dragoman.evaluate.outcome import EvaluationResult


def evaluated(
    run: Path, named: str | None, *, name: str | None, by: Path | None = None, **options: Any
) -> "LanguageModelEvaluation":
    """Score a run and keep the results there; those of another run, ``by``, are not kept. ``options`` are those of
    ``Generator.load``.
    """
    from dragoman.checkpoint import RunDirectory
    from dragoman.evaluate.folders import folder_for
    from dragoman.train.report import page as report

    directory = RunDirectory.open(run)
    found = _scored(by or run, run, named, by_another=by is not None, **options)
    if by is None:
        found.save(folder_for(run, named, name or (None if named else "valid")))
        report.write(directory)
    return found


def multiple_choice(run: Path, named: str | None, *, name: str | None, **options: Any) -> "EvaluationResult":
    """Answer questions by the likeliest choice, and keep the results in the run.

    Raises:
        ConfigError: no file of questions is named.
    """
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.generator import Generator
    from dragoman.errors import ConfigError
    from dragoman.evaluate.folders import corpus_id, folder_for
    from dragoman.evaluate.multiple_choice import evaluate, read_questions
    from dragoman.train.report import page as report

    if named is None:
        raise ConfigError("--multiple-choice: name a file of questions, JSON lines with prompt, choices and answer")
    generator = Generator.load(run, **options)
    with progress_bar("answering", None) as progress:
        found = evaluate(generator, read_questions(named), progress=progress, test_set=corpus_id(named))
    found.save(folder_for(run, named, name))
    report.write(RunDirectory.open(run))
    return found


def following(run: Path, named: str | None, **options: Any) -> "ScoreCheckpoint":
    """Return the scores of a checkpoint; default: the run's validation text."""

    def score(checkpoint: Path) -> dict[str, float]:
        found = _scored(checkpoint, run, named, **options)
        return {score.name: score.value for score in found.scores.values()}

    return score


def _scored(
    reader: Path, run: Path, named: str | None, *, by_another: bool = False, **options: Any
) -> "LanguageModelEvaluation":
    from dragoman.checkpoint import run_config
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.generator import Generator
    from dragoman.evaluate.folders import corpus_id
    from dragoman.evaluate.language_modelling import context_of, documents_for, evaluate

    generator = Generator.load(reader, **options)
    documents = documents_for(run, named, generator.tokenizer, by_another=by_another)
    context = context_of(run_config(reader))
    with progress_bar("scoring", None) as progress:
        return evaluate(generator, documents, context=context, progress=progress, test_set=corpus_id(named))


def show(found: "LanguageModelEvaluation") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("95% interval", justify="right")
    for score in found.scores.values():
        low, high = score.interval
        table.add_row(score.name, f"[bold]{score.value:.4g}[/bold]", f"{low:.4g} to {high:.4g}")
    console().print(table)
    _, tokens, size, words = found.documents.sum(axis=0)
    documents = f"{len(found.documents):,} document{'s' * (len(found.documents) != 1)}"
    counted = f"{documents}, {tokens:,.0f} tokens, {size:,.0f} bytes, {words:,.0f} words"
    console().print(f"[dim]{counted}; read {found.context:,} tokens at once[/dim]", soft_wrap=True)


def show_differences(run: Path, other: Path, differences: "list[Comparison]") -> None:
    """Print the paired comparison of two runs."""
    show_comparison(run, other, differences, number=".4g", difference="+.3g")

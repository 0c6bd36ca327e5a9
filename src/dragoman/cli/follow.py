"""dragoman evaluate --follow: each checkpoint of a run, while another process trains it."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.decode.search.search import SearchConfig
    from dragoman.evaluate.outcome import Evaluator
    from dragoman.evaluate.sentence_scorer import SentenceScorer

ScoreCheckpoint = Callable[[Path], dict[str, float]]


def follow(
    run: Path, pairs: str | None, *, name: str | None, score: ScoreCheckpoint, undirected: Collection[str] = ()
) -> None:
    """Print a line for each checkpoint and, at the end, the best one by the first metric.

    Args:
        undirected: names of metrics of which nobody knows whether higher is better.
    """
    from rich.markup import escape

    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import console
    from dragoman.evaluate.folders import corpus_id, journal_name
    from dragoman.evaluate.language_modelling import LOWER_IS_BETTER
    from dragoman.evaluate.metrics import METRICS
    from dragoman.train.follow import Followed, journal
    from dragoman.train.follow import follow as followed
    from dragoman.train.report import page as report

    directory = RunDirectory.open(run)
    lines = journal(directory, journal_name(run, pairs, name))
    if directory.is_being_written():
        console(errors=True).print("scoring every checkpoint until the training ends; Ctrl-C leaves, all is kept")
    for seen in followed(directory, score, lines, test_set=corpus_id(pairs)):
        scores = "".join(
            f"  {escape(metric)} {value:.{1 if value >= 10 else 3}f}" for metric, value in seen.scores.items()
        )
        console().print(f"[bold]step {seen.step:,}[/bold]{scores}", soft_wrap=True)
    report.write(directory)
    everything = [Followed(**line) for line in lines.lines()]
    if everything:
        metric = next(iter(everything[-1].scores))
        lower = {*LOWER_IS_BETTER, *(known.name for known in METRICS.values() if not known.higher_is_better)}
        having = [seen for seen in everything if metric in seen.scores]
        ends = (end(having, key=lambda seen: seen.scores[metric]) for end in (min, max))
        lowest, highest = (f"step {seen.step:,} ({seen.scores[metric]:.4g})" for seen in ends)
        best = f"best by {metric}: {lowest if metric in lower else highest}"
        if metric in undirected:
            best = f"highest {metric}: {highest}; lowest: {lowest}"
        print(f"nobody trains here any more; {best}")
    else:
        print(f"{run}: no checkpoint, and no training: start with `dragoman train`")


def translation_scorer(
    run: Path,
    pairs: str | None,
    *,
    beam: int | None,
    search: "SearchConfig | None",
    metrics: "list[str | SentenceScorer] | None",
    tags: Sequence[str],
    columns: tuple[str, str] | None = None,
    **options: Any,
) -> ScoreCheckpoint:
    """Return a function that scores a checkpoint's translations; ``options`` are those of ``Translator.load``. Default:
    the run's validation pairs."""
    from dragoman.cli.terminal import progress_bar
    from dragoman.decode.translator import Translator
    from dragoman.evaluate.evaluation import USUAL, evaluate
    from dragoman.evaluate.given import pairs_for

    def score(checkpoint: Path) -> dict[str, float]:
        translator = Translator.load(checkpoint, **options)  # before the test set: reports a run of another task
        test = pairs_for(run, pairs, tags, kept="valid", columns=columns)
        how: dict[str, Any] = {"beam": beam, "search": search, "metrics": metrics or USUAL}
        with progress_bar(checkpoint.name, len(test)) as progress:
            found = evaluate(translator, test, **how, progress=progress)
        return {each.name: each.value for each in found.scores.values()}

    return score


def reader_scorer(kind: "type[Evaluator]", named: str | None, *, device: str) -> ScoreCheckpoint:
    """Return a function that scores a checkpoint of a model that only reads. Default: the run's validation set."""
    from dragoman.cli.terminal import progress_bar

    def score(checkpoint: Path) -> dict[str, float]:
        evaluator = kind(checkpoint, device=device)
        examples = evaluator.examples(named, kept="valid")
        with progress_bar(checkpoint.name, len(examples)) as progress:
            found = evaluator.evaluate(examples, baseline=False, progress=progress)
        return {each.name: each.value for each in found.scores.values()}

    return score

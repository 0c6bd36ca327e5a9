"""dragoman evaluate, of a run that classifies: accuracy, F1, who is taken for whom, and a baseline beside it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dragoman.decode.classifier import Classifier
    from dragoman.evaluate.classification import ClassificationEvaluation
    from dragoman.text.labelled import LabelledText

MOST_LABELS = 12
"""More than so many make a table too wide for a terminal; it is in scores.json."""


def evaluated(
    run: Path, examples: str | None, *, checkpoint: str, device: str, name: str | None
) -> "ClassificationEvaluation":
    from dragoman.checkpoint import RunDirectory
    from dragoman.cli.terminal import tracked
    from dragoman.decode.classifier import Classifier
    from dragoman.evaluate.classification import evaluate
    from dragoman.text.labelled import LabelledLines, guess_labelled, read_labelled
    from dragoman.train import report

    classifier = Classifier.load(run, which=checkpoint, device=device)
    source = guess_labelled(examples) if examples else LabelledLines(path=str(run / "data" / "test.jsonl"))
    test = read_labelled(source, classifier.labels)
    folder = run / "evaluations" / (name or (Path(examples).name.partition(".")[0] if examples else "test"))
    with tracked("classifying", len(test)) as progress:
        evaluation = evaluate(classifier, test, train=_trained_on(run, classifier), folder=folder, progress=progress)
    report.write(RunDirectory.open(run))
    return evaluation


def _trained_on(run: Path, classifier: "Classifier") -> "list[LabelledText]":
    """The training text, if it is still there."""
    from dragoman.text.labelled import LabelledText
    from dragoman.text.store import Store

    if not (run / "data" / "train").is_dir():
        return []
    columns = Store.open(run / "data" / "train").columns
    texts = classifier.tokenizer.decode_batch(columns["text"][i] for i in range(len(columns["text"])))
    return [LabelledText(text, classifier.labels[i]) for text, i in zip(texts, columns["label"].ids, strict=True)]


def show(evaluation: "ClassificationEvaluation") -> None:
    from rich.table import Table

    from dragoman.cli.terminal import console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("", "metric", "score", "95% interval"):
        table.add_column(heading, justify="right" if heading in ("score", "95% interval") else "left")
    for who, scores in (("model", evaluation.scores), ("bag of words", evaluation.baseline)):
        for score in scores.values():
            low, high = score.interval
            table.add_row(who, score.name, f"[bold]{score.value:.1f}[/bold]", f"{low:.1f} to {high:.1f}")
    console().print(table)
    if len(evaluation.labels) > MOST_LABELS:
        return
    matrix = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    matrix.add_column("label, taken for:")
    for label in evaluation.labels:
        matrix.add_column(label, justify="right")
    matrix.add_column("F1", justify="right")
    for label, row in zip(evaluation.labels, evaluation.confusion, strict=True):
        found = evaluation.by_label.get(label)
        matrix.add_row(label, *(f"{count:,}" for count in row), "-" if found is None else f"{found:.1f}")
    console().print()
    console().print(matrix)

"""A classifier on a test set: accuracy and F1 with intervals, who is taken for whom, and what a baseline does.

N texts, K labels.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dragoman import durable
from dragoman.data.labels import confusion, f1
from dragoman.decode.classifier import Classified, Classifier, Progress
from dragoman.errors import DataError
from dragoman.evaluate.baseline import BagOfWords
from dragoman.evaluate.metrics import Metric, Score, score_of
from dragoman.text.labelled import LabelledText


class Accuracy(Metric):
    """Share of labels that are right, in percent."""

    name, signature = "accuracy", "percent"

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        return np.array([[o == r, 1] for o, r in zip(outputs, references, strict=True)], dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


class MacroF1(Metric):
    """The mean over labels of the harmonic mean of precision and recall, in percent."""

    name, signature = "macro F1", "percent|labels:those that occur"

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        index = {label: i for i, label in enumerate(sorted({*outputs, *references}))}
        guessed, true = (np.eye(len(index))[[index[label] for label in side]] for side in (outputs, references))
        return np.concatenate([guessed * true, guessed, true], axis=1)  # (N, 3 K)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * np.nanmean(f1(*np.split(counts, 3))))


METRICS: dict[str, Metric] = {"accuracy": Accuracy(), "macro_f1": MacroF1()}


@dataclass(frozen=True)
class ClassificationEvaluation:
    labels: tuple[str, ...]
    scores: dict[str, Score]
    baseline: dict[str, Score]
    """Of logistic regression on words and pairs of words; empty where there was no training text at hand."""
    confusion: tuple[tuple[int, ...], ...]
    """How often each label (row) was taken for each (column)."""
    by_label: dict[str, float]
    """F1 of each label, in percent."""
    outputs: tuple[Classified, ...]
    references: tuple[str, ...]

    def save(self, folder: str | Path) -> None:
        """Write scores.json and outputs.jsonl, all or nothing; what stood there before gives way."""
        summary = dataclasses.asdict(self) | {"sentences": len(self.outputs)}
        del summary["outputs"], summary["references"]
        lines = (
            json.dumps(dataclasses.asdict(output) | {"reference": reference}, ensure_ascii=False) + "\n"
            for output, reference in zip(self.outputs, self.references, strict=True)
        )
        with durable.folder(Path(folder)) as new:
            durable.write(new / "scores.json", (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
            durable.write(new / "outputs.jsonl", "".join(lines).encode())


def evaluate(
    classifier: Classifier,
    examples: Sequence[LabelledText],
    *,
    train: Sequence[LabelledText] = (),
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> ClassificationEvaluation:
    """Classify ``examples`` and compare with their labels; ``train`` is what the baseline learns from.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError("nothing to evaluate on: the test set has no texts")
    outputs = classifier.classify([example.text for example in examples], progress)
    guessed, true = [output.label for output in outputs], [example.label for example in examples]
    baseline = BagOfWords(train, classifier.labels).guess([e.text for e in examples]) if train else None
    index = {label: i for i, label in enumerate(classifier.labels)}
    matrix = confusion(np.array([index[t] for t in true]), np.array([index[g] for g in guessed]), len(index))
    each = f1(matrix.diagonal().astype(float), matrix.sum(0).astype(float), matrix.sum(1).astype(float))
    evaluation = ClassificationEvaluation(
        labels=classifier.labels,
        scores=_scores(guessed, true),
        baseline=_scores(baseline, true) if baseline else {},
        confusion=tuple(tuple(row) for row in matrix.tolist()),
        by_label={label: 100 * float(x) for label, x in zip(classifier.labels, each, strict=True) if np.isfinite(x)},
        outputs=tuple(outputs),
        references=tuple(true),
    )
    if folder is not None:
        evaluation.save(folder)
    return evaluation


def _scores(guessed: Sequence[str], true: Sequence[str]) -> dict[str, Score]:
    return {name: score_of(metric, metric.counts(guessed, true)) for name, metric in METRICS.items()}

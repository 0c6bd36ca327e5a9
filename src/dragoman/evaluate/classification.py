"""Evaluation of a classifier: accuracy and F1 with intervals, a confusion matrix, and a baseline.

N examples, K labels.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.data.arrays import LabelledArray, guess_arrays, read_arrays
from dragoman.data.labels import confusion, f1, true_labels
from dragoman.data.material import IdMaterial, ImageMaterial
from dragoman.decode.readers.classifier import Classifier
from dragoman.decode.readers.input_reader import Progress
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.baseline import ArrayFeatures, BagOfWords, LogisticRegression
from dragoman.evaluate.metrics import Metric, counted_by, scores_of
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.text.formats.labelled import LabelledLines, LabelledText, guess_labelled, read_labelled
from dragoman.text.store import Store


class Accuracy(Metric):
    """Fraction of labels that are right, in percent."""

    name, signature = "accuracy", "percent"

    def counts(self, outputs: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
        return np.array([[o == r, 1] for o, r in zip(outputs, references, strict=True)], dtype=np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


class MacroF1(Metric):
    """Mean over labels of the harmonic mean of precision and recall, in percent."""

    name, signature = "macro F1", "percent|labels:those that occur"

    def counts(self, outputs: Sequence[str], references: Sequence[str]) -> np.ndarray:
        index = {label: i for i, label in enumerate(sorted({*outputs, *references}))}
        guessed, true = (np.eye(len(index))[[index[label] for label in side]] for side in (outputs, references))
        return np.concatenate([guessed * true, guessed, true], axis=1)  # (N, 3 K)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * np.nanmean(f1(*np.split(counts, 3))))


METRICS: dict[str, Metric] = {"accuracy": Accuracy(), "macro_f1": MacroF1()}

LabelledExample = LabelledText | LabelledArray


def evaluate(
    classifier: Classifier,
    examples: Sequence[LabelledExample],
    *,
    train: Sequence[LabelledExample] = (),
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Classify ``examples`` and compare with their labels; the baseline is trained on ``train``.

    Raises:
        DataError: no examples, or one that the model cannot read.
    """
    if not examples:
        raise DataError("nothing to evaluate on: the test set has no examples")
    given, true = [example.given for example in examples], [example.label for example in examples]
    names = [e.text if isinstance(e, LabelledText) else e.where for e in examples]
    outputs = classifier.classify(given, progress, names)
    guessed = [output.label for output in outputs]
    baseline = _baseline(classifier, train) if train else None
    counted = counted_by(METRICS, guessed, true)
    outcome = EvaluationResult(
        scores=scores_of(counted),
        baseline=scores_of(counted_by(METRICS, baseline.guess(_read(classifier, examples)), true)) if baseline else {},
        baseline_name=baseline.name if baseline else "",
        outputs=tuple(asdict(o) | {"reference": t} for o, t in zip(outputs, true, strict=True)),
        details=_by_label(classifier.labels, guessed, true),
        counted=counted,
    )
    if folder is not None:
        outcome.save(folder)
    return outcome


def _by_label(labels: Sequence[str], guessed: Sequence[str], true: Sequence[str]) -> dict[str, Any]:
    """Return the confusion matrix (true label by row, predicted by column) and F1 of each label, in percent."""
    index = {label: i for i, label in enumerate(labels)}
    matrix = confusion(np.array([index[t] for t in true]), np.array([index[g] for g in guessed]), len(index))
    each = f1(matrix.diagonal().astype(float), matrix.sum(0).astype(float), matrix.sum(1).astype(float))
    known = {label: 100 * float(x) for label, x in zip(labels, each, strict=True) if np.isfinite(x)}
    return {"labels": list(labels), "confusion": matrix.tolist(), "by_label": known}


# ---- the baseline ---------------------------------------------------------------------------------


def _baseline(classifier: Classifier, train: Sequence[LabelledExample]) -> LogisticRegression:
    given, true = _read(classifier, train), [example.label for example in train]
    if isinstance(classifier.material, IdMaterial):
        return BagOfWords(given, true, classifier.labels)
    return ArrayFeatures(given, true, classifier.labels, over_time=not isinstance(classifier.material, ImageMaterial))


def _read(classifier: Classifier, examples: Sequence[LabelledExample]) -> list[Any]:
    """Return texts as they are, and image files and arrays as the model reads them."""
    given, material = [example.given for example in examples], classifier.material
    if isinstance(material, IdMaterial):
        return given
    return [material.restored(row) for row in material.rows(given, [example.where for example in examples])]


# ---- a run ----------------------------------------------------------------------------------------


class ClassificationEvaluator(Evaluator):
    """Evaluation of classifiers."""

    verb = "classifying"

    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        self.classifier = Classifier.load(run, checkpoint, device=device)
        if self.classifier.problem_type != "single_label":
            raise ConfigError(
                f"{run}: its model answers a {self.classifier.problem_type.replace('_', '-')} problem; accuracy and F1 "
                "are for one label a text"
            )
        self.texts = isinstance(self.classifier.material, IdMaterial)

    def examples(self, named: str | None, kept: str = "test") -> Sequence[LabelledExample]:
        labels = self.classifier.labels
        if not self.texts:
            return read_arrays(guess_arrays(named), labels) if named else self.stored(kept)
        source = guess_labelled(named) if named else LabelledLines(path=str(self.data / f"{kept}.jsonl"))
        return read_labelled(source, labels)

    def stored(self, name: str) -> list[LabelledExample]:
        """Return the examples that the run stores under ``name``; none if they are gone."""
        if not (self.data / name).is_dir():
            return []
        store, labels = Store.open(self.data / name), self.classifier.labels
        given = (self.classifier.material.restored(store.columns["given"].raw_row(i)) for i in range(len(store)))
        rows = enumerate(zip(given, true_labels(store), strict=True), 1)
        if self.texts:
            return [LabelledText(text, labels[i]) for _, (text, i) in rows]
        return [LabelledArray(array, labels[i], f"{name} example {number}", "") for number, (array, i) in rows]

    def evaluate(
        self,
        examples: Sequence[LabelledExample],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        train = self.stored("train") if baseline else []
        return evaluate(self.classifier, examples, train=train, folder=folder, progress=progress)

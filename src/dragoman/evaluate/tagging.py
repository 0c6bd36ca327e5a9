"""Evaluation of a tagger: accuracy, F1 of spans or of labels, and a baseline, the most frequent label of each word.

N sentences, K labels.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import numpy as np

from dragoman.data.labels import f1
from dragoman.data.tags import mark_spans, spans
from dragoman.decode.readers.input_reader import Progress
from dragoman.decode.readers.tagger import Tagger
from dragoman.errors import DataError
from dragoman.evaluate.metrics import Metric, counted_by, scores_of
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.text.formats.tagged import TaggedLines, TaggedText, guess_tagged, read_tagged
from dragoman.text.store import Store

Labels = Sequence[str]


class WordAccuracy(Metric):
    """Fraction of words with the right label, in percent; outputs are the labels of sentences."""

    name, signature = "accuracy", "percent|of words"

    def counts(self, outputs: Sequence[Labels], references: Sequence[Labels]) -> np.ndarray:
        pairs = zip(outputs, references, strict=True)
        return np.array([[sum(map(str.__eq__, o, r)), len(r)] for o, r in pairs], np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / max(counts[1], 1))


class SpanF1(Metric):
    """Harmonic mean of precision and recall of spans, all kinds together, in percent, as in conlleval and seqeval.

    Outputs are the labels of sentences.
    """

    name, signature = "span F1", "percent|spans:IOB2, read as conlleval does|micro"

    def counts(self, outputs: Sequence[Labels], references: Sequence[Labels]) -> np.ndarray:
        sides = [(spans(o), spans(r)) for o, r in zip(outputs, references, strict=True)]
        return np.array([[len(o & r), len(o), len(r)] for o, r in sides], np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(200 * counts[0] / max(counts[1] + counts[2], 1))


class WordMacroF1(Metric):
    """Mean over labels of the harmonic mean of precision and recall, in percent; outputs are sentences' labels."""

    name, signature = "macro F1", "percent|of words|labels:those that occur"

    def counts(self, outputs: Sequence[Labels], references: Sequence[Labels]) -> np.ndarray:
        index = {label: i for i, label in enumerate(sorted({*chain(*outputs), *chain(*references)}))}
        rows = []
        for o, r in zip(outputs, references, strict=True):
            guessed, true = (np.eye(len(index))[[index[label] for label in side]] for side in (o, r))
            rows.append(np.concatenate([(guessed * true).sum(0), guessed.sum(0), true.sum(0)]))
        return np.array(rows)  # (N, 3 K)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * np.nanmean(f1(*np.split(counts, 3))))


METRICS: dict[str, Metric] = {"accuracy": WordAccuracy(), "span_f1": SpanF1(), "macro_f1": WordMacroF1()}


class MostFrequentLabel:
    """Predict for each word its most frequent label in training; for unknown words the most frequent one of all."""

    name = "most frequent label of the word"

    def __init__(self, train: Iterable[TaggedText]):
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for example in train:
            for token, label in zip(example.tokens, example.labels, strict=True):
                counts[token][label] += 1
        self.labels = {token: _most_common(count) for token, count in counts.items()}
        self.otherwise = _most_common(sum(counts.values(), Counter()))

    def guess(self, tokens: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.labels.get(token, self.otherwise) for token in tokens)


def _most_common(count: Counter[str]) -> str:
    return min(count, key=lambda label: (-count[label], label))


def evaluate(
    tagger: Tagger,
    examples: Sequence[TaggedText],
    *,
    train: Sequence[TaggedText] = (),
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Tag ``examples`` and compare with their labels; the baseline is trained on ``train``.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError("nothing to evaluate on: the test set has no sentences")
    found = tagger.tag([example.tokens for example in examples], progress)
    true = [example.labels for example in examples]
    used = {name: METRICS[name] for name in ("accuracy", "span_f1" if mark_spans(tagger.labels) else "macro_f1")}
    baseline = MostFrequentLabel(train) if train else None
    counted = counted_by(used, [one.labels for one in found], true)
    simple = counted_by(used, [baseline.guess(e.tokens) for e in examples], true) if baseline else {}
    outcome = EvaluationResult(
        scores=scores_of(counted),
        baseline=scores_of(simple),
        baseline_name=baseline.name if baseline else "",
        outputs=tuple(asdict(one) | {"reference": t} for one, t in zip(found, true, strict=True)),
        counted=counted,
    )
    if folder is not None:
        outcome.save(folder)
    return outcome


class TaggingEvaluator(Evaluator):
    """Evaluation of taggers."""

    verb = "tagging"

    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        self.tagger = Tagger.load(run, checkpoint, device=device)

    def examples(self, named: str | None, kept: str = "test") -> list[TaggedText]:
        source = guess_tagged(named) if named else TaggedLines(path=str(self.data / f"{kept}.jsonl"))
        return read_tagged(source, self.tagger.labels)

    def evaluate(
        self,
        examples: Sequence[TaggedText],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        train = list(self.trained_on()) if baseline and (self.data / "train").is_dir() else []
        return evaluate(self.tagger, examples, train=train, folder=folder, progress=progress)

    def trained_on(self) -> Iterator[TaggedText]:
        """Yield the training text, a part of a sentence at a time."""
        columns, decode = Store.open(self.data / "train").columns, self.tagger.material.restored
        for i in range(len(columns["text"])):
            ids, labels = columns["text"][i], columns["label"][i]
            first = labels.nonzero()[0]
            words = (decode(piece).strip() for piece in np.split(ids[:-1], first)[1:])
            yield TaggedText(tuple(words), tuple(self.tagger.labels[labels[j] - 1] for j in first))

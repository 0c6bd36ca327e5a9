"""Evaluation of question answering: SQuAD's exact match and F1, and a baseline, the sentence most like the question."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dragoman.data import answers as answering
from dragoman.decode.readers.answerer import Answerer
from dragoman.decode.readers.input_reader import Progress
from dragoman.errors import DataError
from dragoman.evaluate.metrics import Metric, counted_by, scores_of
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.text.formats.questions import Question, QuestionLines, guess_questions, read_questions

SIGNATURE = "percent|SQuAD 2.0:lower case, no punctuation, no articles|best of the answers given"


class AnswerAgreement(Metric):
    """Mean over questions of a measure, in percent; each answer is compared with all that are right.

    With ``answerable`` the mean is over the questions that have an answer, or over those that have none.
    """

    def __init__(self, name: str, measure: Callable[[str, str], float], answerable: bool | None = None):
        self.name, self.measure, self.answerable, self.signature = name, measure, answerable, SIGNATURE

    def counts(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
        pairs = [*zip(outputs, references, strict=True)]
        found = np.array([[answering.best(self.measure, *pair), 1] for pair in pairs], np.float64)
        return found if self.answerable is None else found * [[bool(r) == self.answerable] for r in references]

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / max(counts[1], 1))


METRICS: dict[str, Metric] = {
    "exact_match": AnswerAgreement("exact match", answering.exact),
    "f1": AnswerAgreement("F1", answering.f1),
}
BY_KIND: dict[str, Metric] = {
    f"{name}_{kind}": AnswerAgreement(f"{shown}, {kind}", measure, answerable)
    for kind, answerable in (("answerable", True), ("unanswerable", False))
    for name, shown, measure in (("exact_match", "exact match", answering.exact), ("f1", "F1", answering.f1))
}
"""The same of questions with and without an answer, as ``evaluate-v2.0.py`` of SQuAD prints them beside."""

# ---- the baseline ---------------------------------------------------------------------------------

BASELINE = "the sentence with most words of the question"
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


def likest_sentence(context: str, question: str) -> str:
    """Return the sentence of ``context`` that shares most different words with ``question``, the first of equals."""
    wanted = set(answering.words(question))
    return max(_BETWEEN_SENTENCES.split(context), key=lambda sentence: len(wanted & set(answering.words(sentence))))


# ---- a run ----------------------------------------------------------------------------------------


def evaluate(
    answerer: Answerer,
    examples: Sequence[Question],
    *,
    baseline: bool = True,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Answer the questions of ``examples`` and compare with their answers.

    Raises:
        DataError: no examples.
    """
    if not examples:
        raise DataError("nothing to evaluate on: the test set has no questions")
    found = answerer.ask([(one.context, one.question) for one in examples], progress)
    right = [[answer.text for answer in one.answers] for one in examples]
    simple = [likest_sentence(one.context, one.question) for one in examples] if baseline else []
    metrics = METRICS | BY_KIND if any(right) and not all(right) else METRICS
    counted = counted_by(metrics, [one.answer for one in found], right)
    outcome = EvaluationResult(
        scores=scores_of(counted),
        baseline=scores_of(counted_by(metrics, simple, right)) if baseline else {},
        baseline_name=BASELINE if baseline else "",
        outputs=tuple(asdict(one) | {"reference": texts} for one, texts in zip(found, right, strict=True)),
        counted=counted,
    )
    if folder is not None:
        outcome.save(folder)
    return outcome


class AnsweringEvaluator(Evaluator):
    """Evaluation of models that answer questions."""

    verb = "answering"

    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        self.answerer = Answerer.load(run, checkpoint, device=device)

    def examples(self, named: str | None, kept: str = "test") -> list[Question]:
        source = guess_questions(named) if named else QuestionLines(path=str(self.data / f"{kept}.jsonl"))
        return read_questions(source)

    def evaluate(
        self,
        examples: Sequence[Question],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        return evaluate(self.answerer, examples, baseline=baseline, folder=folder, progress=progress)

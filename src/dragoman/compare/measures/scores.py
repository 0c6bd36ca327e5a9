"""Scores of a test set: of translations, and of models that read."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import PositiveInt

from dragoman.compare.figure import Figure, FigureCurve, StudySubject, scored
from dragoman.config import kind_of, unknown
from dragoman.decode.request import request_for
from dragoman.decode.translator import Translator, search_for_beam
from dragoman.errors import ConfigError
from dragoman.evaluate.evaluation import ALL_METRICS, LENGTHS
from dragoman.evaluate.evaluators import EVALUATORS
from dragoman.evaluate.given import pairs_for


def translation(
    subject: StudySubject,
    *,
    beam: PositiveInt = 1,
    sentences: PositiveInt | None = None,
    metrics: Sequence[str] = ("bleu", "chrf", "bleu_lowercase_tokenized"),
) -> Mapping[str, Figure]:
    """Translate the run's test set and score it; each score has a curve over the length of the source in words.

    Args:
        subject: the run.
        beam: hypotheses of the search; 1 is greedy.
        sentences: number of test sentences, from the first; None for all.
        metrics: names in ``ALL_METRICS``; the first one has the curve.
    """
    assert subject.run is not None, "a study that trains"
    for name in metrics:
        if name not in ALL_METRICS:
            raise ConfigError(unknown("measures.translation.metrics", name, ALL_METRICS))
    translator = Translator.load(subject.run, subject.checkpoint)
    pairs = pairs_for(subject.run, None)[:sentences]
    outputs = translator.translate(list(map(request_for, pairs)), search=search_for_beam(beam))
    texts, references = [output.text for output in outputs], [pair.target for pair in pairs]
    bucket = np.searchsorted(LENGTHS, [len(pair.source.split()) for pair in pairs])
    found = {}
    for name in metrics:
        counts = ALL_METRICS[name].counts(texts, references)
        at = [int(i) for i in np.unique(bucket)]
        values = tuple(ALL_METRICS[name].value(counts[bucket == i].sum(axis=0)) for i in at)
        curve = FigureCurve("words of the source", tuple(map(_words, at)), values)
        found[ALL_METRICS[name].name] = scored(ALL_METRICS[name], counts, curve=curve)
    return found


def _words(bucket: int) -> str:
    first = LENGTHS[bucket - 1] + 1 if bucket else 1
    return f"{first} to {LENGTHS[bucket]}" if bucket < len(LENGTHS) else f"{first} and more"


def task(subject: StudySubject) -> Mapping[str, Figure]:
    """Return the scores of a model that reads on the run's own test set: accuracy, F1, exact match, recall, ..."""
    assert subject.run is not None and subject.cfg is not None, "a study that trains"
    kind = kind_of(type(subject.cfg.task))
    if kind not in EVALUATORS:
        raise ConfigError(f"measures.task: is for models that read, not for {kind}: use translation or perplexity")
    evaluator = EVALUATORS[kind](subject.run, subject.checkpoint)
    found = evaluator.evaluate(evaluator.examples(None), baseline=False)
    return {one.metric.name: scored(*one, unit="%") for one in found.counted.values()}

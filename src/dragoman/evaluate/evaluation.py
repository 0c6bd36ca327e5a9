"""Evaluation of a translator on a test set: its scores, overall and by source length, and its outputs."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dragoman import durable
from dragoman.config import to_dict, unknown
from dragoman.decode.arguments import check_list
from dragoman.decode.knn import NearestNeighbours, neighbours_of
from dragoman.decode.request import request_for
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.translator import Progress, Translator
from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.brackets import BracketF1
from dragoman.evaluate.metrics import METRICS, Comparison, Metric, Score, compare, score_of
from dragoman.evaluate.rouge import ROUGES
from dragoman.evaluate.sentence_scorer import SentenceScorer
from dragoman.json_files import json_text
from dragoman.text.lines import Pair, Sourced

ALL_METRICS: dict[str, Metric] = {**METRICS, **ROUGES, "bracket_f1": BracketF1()}
"""Metrics by name: of translations, summaries and trees."""
USUAL = ("bleu", "chrf", "bleu_lowercase_tokenized", "exact_match")
"""Metrics computed by default."""
OF_WORDS = ("bleu", "bleu_lowercase_tokenized", "bleu_lowercase_as_given", "bleu_intl", "ter", *ROUGES)
"""Metrics whose words stand between spaces."""
FEW_SPACES = 15
"""Characters a word, from which references count as of a script without spaces; German has about 7, Finnish 9."""
LENGTHS = (5, 10, 20, 30, 50)
"""Upper ends of the buckets, in words of the source."""


@dataclass(frozen=True)
class EvaluatedOutput:
    """One output with its source and reference."""

    source: str
    output: str
    reference: str
    score: float
    """The model's own score, which the search ranked by."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LengthBucket:
    """Sentences whose source has ``shortest`` to ``longest`` words, separated by spaces."""

    shortest: int
    longest: int | None
    """Upper end; None in the last bucket, which has no limit."""
    sentences: int
    scores: dict[str, Score]


@dataclass(frozen=True)
class Evaluation:
    """Scores and outputs of a translator on one test set."""

    scores: dict[str, Score]
    by_length: tuple[LengthBucket, ...]
    """Scores by length, shortest sources first; buckets without a sentence are left out."""
    outputs: tuple[EvaluatedOutput, ...]
    search: SearchConfig
    seconds: float
    """Seconds spent translating."""
    test_set: str = ""
    """Test set, as ``folders.corpus_id`` identifies it."""
    neighbours: NearestNeighbours | None = None
    """Datastore whose states voted, with its settings; None where the model translated alone."""
    metrics: dict[str, Metric] = field(default_factory=dict, repr=False, compare=False)
    """The metric of each score."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what to know before believing the scores, a sentence each."""
        references = [output.reference for output in self.outputs]
        names = [self.metrics[name].name for name in OF_WORDS if name in self.metrics]
        if not names or sum(map(len, references)) < FEW_SPACES * sum(len(text.split()) for text in references):
            return ()
        return (
            f"The references have hardly any spaces, and {', '.join(names)} can only count words between spaces: ask "
            "for bleu_zh (Chinese) or bleu_char (any script), or rely on chrF.",
        )

    def save(self, folder: str | Path) -> None:
        """Write scores.json, outputs.jsonl and translations.txt, all or nothing; earlier results are replaced."""
        with durable.folder(Path(folder)) as new:
            text = json_text(self.summary(), indent=1) + "\n"
            durable.write(new / "scores.json", text.encode())
            durable.write(new / "outputs.jsonl", _lines(json_text(o) for o in self._plain()))
            durable.write(new / "translations.txt", _lines(o.output for o in self.outputs))

    def summary(self) -> dict[str, Any]:
        """Return everything but the outputs, as plain data."""
        plain = dataclasses.asdict(dataclasses.replace(self, outputs=(), metrics={}))
        summary = plain | {"search": to_dict(self.search), "sentences": len(self.outputs), "notes": self.notes}
        summary["neighbours"] = None if self.neighbours is None else to_dict(self.neighbours)
        del summary["outputs"], summary["metrics"]
        return summary

    def against(self, other: "Evaluation") -> dict[str, Comparison]:
        """Return how much better or worse ``other`` scores on the same pairs, by each metric."""
        references = [output.reference for output in self.outputs]
        ours, theirs = ([o.output for o in evaluation.outputs] for evaluation in (self, other))
        return {name: compare(metric, ours, theirs, references) for name, metric in self.metrics.items()}

    def _plain(self) -> Iterator[dict[str, Any]]:
        return map(dataclasses.asdict, self.outputs)


def evaluate(
    translator: Translator,
    pairs: Iterable[Pair | Sourced],
    *,
    folder: str | Path | None = None,
    beam: int | None = None,
    search: SearchConfig | None = None,
    metrics: Sequence[str | SentenceScorer] = USUAL,
    progress: Progress | None = None,
    test_set: str = "",
) -> Evaluation:
    """Translate the sources of ``pairs`` and score the outputs against their targets.

    Args:
        translator: the translator to evaluate.
        pairs: sources with their reference translations.
        folder: where to store the results, by convention ``RUN/evaluations/NAME``; None for nowhere.
        beam: hypotheses kept; 1 is greedy search. By default 5, or the search that came with an imported model.
        search: a complete search configuration, instead of ``beam``.
        metrics: names in ``ALL_METRICS``, or programs that score sentences.
        progress: see ``Translator.translate``.
        test_set: identifies the pairs in the results.

    Raises:
        ConfigError: a metric that does not exist, or a program that does not score every sentence.
        DataError: no pairs.
        TypeError: ``metrics`` is no list.
    """
    metrics = check_list(metrics, "metrics", what="metrics")
    for name in metrics:
        if isinstance(name, str) and name not in ALL_METRICS:
            raise ConfigError(unknown("metrics", name, ALL_METRICS))
    pairs, cfg = list(pairs), translator.search_of(search, beam)
    if not pairs:
        raise DataError("nothing to evaluate on: the test set has no pairs")
    began = time.monotonic()
    translations = translator.translate(list(map(request_for, pairs)), search=cfg, progress=progress)
    seconds = time.monotonic() - began
    outputs = tuple(
        EvaluatedOutput(pair.source, t.text, pair.target, t.score, t.warnings)
        for pair, t in zip(pairs, translations, strict=True)
    )
    chosen = dict(_chosen(metrics, [output.source for output in outputs]))
    votes = neighbours_of(translator.model)
    evaluation = Evaluation(*_scored(outputs, chosen), outputs, cfg, seconds, test_set, votes, chosen)
    if folder is not None:
        evaluation.save(folder)
    return evaluation


def _chosen(metrics: Sequence[str | SentenceScorer], sources: Sequence[str]) -> Iterator[tuple[str, Metric]]:
    for metric in metrics:
        yield (metric, ALL_METRICS[metric]) if isinstance(metric, str) else (metric.name, metric.of(sources))


def _scored(
    outputs: Sequence[EvaluatedOutput], metrics: Mapping[str, Metric]
) -> tuple[dict[str, Score], tuple[LengthBucket, ...]]:
    texts, references = [o.output for o in outputs], [o.reference for o in outputs]
    counts = {name: metric.counts(texts, references) for name, metric in metrics.items()}

    def scores(rows: slice | np.ndarray) -> dict[str, Score]:
        return {name: score_of(metric, counts[name][rows]) for name, metric in metrics.items()}

    bucket = np.searchsorted(LENGTHS, [len(o.source.split()) for o in outputs])
    starts, ends = (0, *(end + 1 for end in LENGTHS)), (*LENGTHS, None)
    by_length = tuple(
        LengthBucket(starts[i], ends[i], int((bucket == i).sum()), scores(bucket == i)) for i in np.unique(bucket)
    )
    return scores(slice(None)), by_length


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()

"""Material of a translator's checklist: its answers as users get them, test pairs, and the training text."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dragoman.checkpoint import run_folder
from dragoman.decode.documents.line_translation import LineSettings, LineTranslator
from dragoman.decode.search.search import SearchConfig
from dragoman.decode.sentence_splitting import NO_SPLITTING
from dragoman.decode.translation import Translation
from dragoman.errors import DataError
from dragoman.evaluate.metrics import METRICS, Score, score_of
from dragoman.inspect.checklist.languages import LANGUAGES, LanguageWords, recognise
from dragoman.inspect.failures import words_of_text
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.held_out import read_held_out
from dragoman.text.lines import Pair, Sourced

CHUNK = 10_000


@dataclass(frozen=True)
class ChecklistSettings:
    """Run, search and sizes of a checklist."""

    run: Path
    search: SearchConfig
    checkpoint: str = "best"
    device: str = "auto"
    precision: str = "auto"
    sentences: int = 1000
    """Most test pairs for quality."""
    sample: int = 200
    """Most test pairs for each perturbation."""


class TranslatorMaterial:
    """A translator with test pairs, its answers to them, and its training text."""

    def __init__(self, settings: ChecklistSettings, test: Sequence[Sourced], *, named: str = ""):
        """
        Args:
            test: pairs to measure on.
            named: their name, for the page.

        Raises:
            DataError: no test pair.
        """
        self.settings, self.named = settings, named
        self.test = [pair for pair in test if pair.source.strip() and pair.target.strip()][: settings.sentences]
        if not self.test:
            raise DataError("the test set has no pairs of two texts: name another with --test")
        self.folder = run_folder(settings.run)
        line_settings = LineSettings(
            run=settings.run,
            search=settings.search,
            checkpoint=settings.checkpoint,
            device=settings.device,
            precision=settings.precision,
        )
        self.lines: LineTranslator = line_settings.open()
        usual = [self.test[i] for i in self.usual]
        self.words = LANGUAGES.get(recognise(pair.source for pair in usual) or "")
        self.target_words: LanguageWords | None = LANGUAGES.get(recognise(pair.target for pair in usual) or "")

    def translate(self, pairs: Sequence[Sourced], *, split_sentences: bool = True) -> list[Translation]:
        """Return the translations that a user gets of the sources of pairs, each by itself, with its tags and after
        its context."""
        translator = self.lines.translator if split_sentences else _without_splitting(self.lines.translator)
        found: dict[int, Translation] = {}
        for tags, rows in by_tags(pairs).items():
            lines = LineTranslator(replace(self.lines.settings, tags=tuple(tags.split())), translator)
            chosen = [pairs[i] for i in rows]
            answers = lines.stream([pair.source for pair in chosen], contexts=[pair.context for pair in chosen])
            found |= zip(rows, answers, strict=True)
        return [found[i] for i in range(len(pairs))]

    @cached_property
    def answers(self) -> list[Translation]:
        """Translations of the test set."""
        return self.translate(self.test)

    @cached_property
    def usual(self) -> list[int]:
        """Rows of the test set with its most frequent tags, such as those of one target language."""
        return max(by_tags(self.test).values(), key=len)

    def to_usual(self, texts: Sequence[str]) -> list[Sourced]:
        """Return texts of our own as pairs that are asked for with the most frequent tags."""
        tags = self.test[self.usual[0]].tags
        return [Sourced(text, "", "", tags) for text in texts]

    @cached_property
    def chrf(self) -> np.ndarray:
        """Counts of chrF of each answer."""
        return METRICS["chrf"].counts([a.text for a in self.answers], [pair.target for pair in self.test])

    @cached_property
    def sample(self) -> list[int]:
        """Rows of the test set that perturbations are measured on: spread over it evenly."""
        return spread(len(self.test), self.settings.sample)

    @cached_property
    def corpus(self) -> ParallelCorpus | None:
        """The training text as ids; None where it is gone."""
        try:
            return ParallelCorpus.open(self.folder / "data" / "train")
        except (DataError, OSError):
            return None

    def training_pairs(self) -> Iterator[Pair]:
        """Yield the training text, spelt out again from its ids."""
        if (corpus := self.corpus) is None:
            return
        sides = self.lines.translator.source_tokenizer, self.lines.translator.target_tokenizer
        for start in range(0, len(corpus), CHUNK):
            rows = range(start, min(start + CHUNK, len(corpus)))
            texts = [
                tokenizer.decode_batch(column[i] for i in rows)
                for tokenizer, column in zip(sides, (corpus.source, corpus.target), strict=True)
            ]
            yield from map(Pair, *texts)

    @cached_property
    def word_counts(self) -> Counter[str] | None:
        """Number of training sources that hold each word of the test sources; None where the training text is gone."""
        if self.corpus is None:
            return None
        wanted = {word for pair in self.test for word in words_of_text(pair.source)}
        counts: Counter[str] = Counter()
        for pair in self.training_pairs():
            counts.update(wanted.intersection(words_of_text(pair.source)))
        return counts

    def held_out(self, name: str) -> list[Sourced]:
        """Return the pairs that the run holds out under a name, such as hard; none where there are none."""
        path = self.folder / "data" / f"{name}.jsonl"
        return read_held_out(path) if path.exists() else []


def by_tags(pairs: Sequence[Sourced]) -> dict[str, list[int]]:
    """Return the rows of pairs by their tags."""
    rows: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        rows.setdefault(pair.tags, []).append(i)
    return rows


def spread(total: int, most: int) -> list[int]:
    """Return up to ``most`` of the rows 0 to ``total - 1``, spread over them evenly."""
    count = min(most, total)
    return [i * total // count for i in range(count)]


def chrf_of(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return the chrF of some texts."""
    metric = METRICS["chrf"]
    return metric.value(metric.counts(texts, references).sum(axis=0)) if texts else 0.0


def scored(name: str, texts: Sequence[str], references: Sequence[str]) -> Score:
    """Return a metric's score with its interval."""
    return score_of(METRICS[name], METRICS[name].counts(texts, references))


def each_chrf(counts: np.ndarray) -> list[float]:
    """Return the chrF of each sentence."""
    return [METRICS["chrf"].value(row) for row in counts]


def _without_splitting(translator: Any) -> Any:
    other = copy.copy(translator)  # its weights are shared
    other.splitter = NO_SPLITTING
    return other

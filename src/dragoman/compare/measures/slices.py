"""Measure of a translator on parts of its test set: sentences with rare words, and the hard ones that it held out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveInt

from dragoman.compare.figure import Figure, StudySubject, scored
from dragoman.decode.request import request_for
from dragoman.decode.translator import Translator
from dragoman.errors import ConfigError
from dragoman.evaluate.given import pairs_for
from dragoman.evaluate.metrics import METRICS
from dragoman.inspect.failures import RARE, words_of_text
from dragoman.text.corpus import ParallelCorpus
from dragoman.text.held_out import read_held_out
from dragoman.train.tasks.task_data import FOLDER

CHUNK = 10_000
"""Training pairs whose texts are in memory at a time."""


def slices(
    subject: StudySubject, *, beam: PositiveInt = 1, sentences: PositiveInt | None = None
) -> Mapping[str, Figure]:
    """Return BLEU of test sentences whose words are all frequent in training, of those with a rare word, and of the
    hard set where the run held one out.

    Args:
        subject: the run of a translator.
        beam: hypotheses kept.
        sentences: number of test sentences, from the first; None for all.

    Raises:
        ConfigError: a study that trains nothing.
    """
    if subject.run is None:
        raise ConfigError("measures.slices: needs trained runs")
    translator = Translator.load(subject.run, subject.checkpoint)
    pairs = pairs_for(subject.run, None)[:sentences]
    rarest = _rarest(subject.run, translator, [pair.source for pair in pairs])
    found = {}
    for name, chosen in (("BLEU, frequent words", rarest >= RARE), ("BLEU, with a rare word", rarest < RARE)):
        if some := [pair for pair, one in zip(pairs, chosen, strict=True) if one]:
            found[name] = _bleu(translator, some, beam, f"{len(some)} sentences|rare: in fewer than {RARE} pairs")
    hard = subject.run / FOLDER / "hard.jsonl"
    if hard.is_file() and (some := read_held_out(hard)[:sentences]):
        found["BLEU, hard set"] = _bleu(translator, some, beam, f"{len(some)} sentences")
    return found


def _bleu(translator: Translator, pairs: Sequence[Any], beam: int, note: str) -> Figure:
    outputs = [found.text for found in translator.translate(list(map(request_for, pairs)), beam=beam)]
    metric = METRICS["bleu"]
    counts = metric.counts(outputs, [pair.target for pair in pairs])
    return scored(metric, counts, signature=f"{metric.signature}|{note}")


def _rarest(run: Path, translator: Translator, texts: Sequence[str]) -> np.ndarray:
    """Return for each text the number of training pairs that have its rarest word in the source."""
    words = [set(words_of_text(text)) for text in texts]
    wanted, counts = set[str]().union(*words), Counter[str]()
    corpus = ParallelCorpus.open(run / FOLDER / "train")
    for start in range(0, len(corpus), CHUNK):
        rows = (corpus.source[i] for i in range(start, min(start + CHUNK, len(corpus))))
        for text in translator.source_tokenizer.decode_batch(rows):
            counts.update(wanted.intersection(words_of_text(text)))
    return np.array([min((counts[word] for word in some), default=RARE) for some in words])

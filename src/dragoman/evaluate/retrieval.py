"""Evaluation of two towers: ranks of the right partners among all, and a baseline on shared words and letters.

F distinct first items, S distinct second items; N texts, M other texts, W features of a text.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dragoman.data.captions import CaptionedImage, CaptionTable
from dragoman.data.matches import distinct_items, place, ranks, side, stored_captions
from dragoman.decode.readers.embedder import Embedder
from dragoman.decode.readers.input_reader import Progress
from dragoman.errors import DataError
from dragoman.evaluate.metrics import CountedScore, Metric, scores_of
from dragoman.evaluate.outcome import EvaluationResult, Evaluator
from dragoman.text.formats.pairs import JsonLines, guess_source, read_pairs
from dragoman.text.lines import Pair
from dragoman.text.store import Store, chunks
from dragoman.text.words import WORD

MatchedExample = Pair | CaptionedImage
AT_ONCE = 1000
"""Texts whose features are held in memory at a time."""


class RecallAtK(Metric):
    """Recall at k of the partners' ranks, counted from 1, in percent.

    With ``within`` None it is the mean of 1 / rank.
    """

    signature = "percent|partners:any|ties:count against"

    def __init__(self, name: str, within: int | None):
        self.name, self.within = name, within

    def counts(self, outputs: Sequence[int], references: Sequence[Any]) -> np.ndarray:
        found = np.array(outputs)
        value = 1 / found if self.within is None else found <= self.within
        return np.stack([value, np.ones(len(found))], axis=1).astype(np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


METRICS = {"recall@1": 1, "recall@5": 5, "MRR": None}


def counted_ranks(similarity: Float[np.ndarray, "F S"], partners: Bool[np.ndarray, "F S"]) -> dict[str, CountedScore]:
    """Return the counts of finding a partner of each first item, and the other way round ("back")."""
    found: dict[str, CountedScore] = {}
    for suffix, matrix, wanted in (("", similarity, partners), (" back", similarity.T, partners.T)):
        places = ranks(matrix, wanted).tolist()
        for name, within in METRICS.items():
            metric = RecallAtK(name + suffix, within)
            found[name + suffix] = CountedScore(metric, metric.counts(places, places))
    return found


class TfIdf:
    """Cosines between texts as bags of words and of letter trigrams, weighted by inverse document frequency."""

    name = "tf-idf of words and letters"

    def __init__(self, texts: Iterable[str]):
        bags = [set(_features(text)) for text in texts]
        count = Counter(feature for bag in bags for feature in bag)
        self.unseen = math.log(1 + len(bags)) + 1
        self.weight = {feature: math.log((1 + len(bags)) / (1 + n)) + 1 for feature, n in count.items()}

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> Float[np.ndarray, "N M"]:
        left, right = ([self._vector(text) for text in texts] for texts in (first, second))
        index = {feature: i for i, feature in enumerate({f for vector in left for f in vector})}
        against = [_dense(group, index).T for group in chunks(right, AT_ONCE)]
        parts = (_dense(group, index) for group in chunks(left, AT_ONCE))
        return np.concatenate([np.concatenate([part @ other for other in against], axis=1) for part in parts])

    def _vector(self, text: str) -> dict[str, float]:
        values = {f: n * self.weight.get(f, self.unseen) for f, n in Counter(_features(text)).items()}
        length = math.sqrt(sum(value**2 for value in values.values())) or 1.0
        return {feature: value / length for feature, value in values.items()}


def _features(text: str) -> list[str]:
    words = WORD.findall(text.lower())
    return words + [f"{word:^{len(word) + 2}}"[i : i + 3] for word in words for i in range(len(word))]


def _dense(vectors: Sequence[dict[str, float]], index: dict[str, int]) -> Float[np.ndarray, "N W"]:
    """Return a matrix of features that both sides have; all others contribute nothing to a product."""
    matrix = np.zeros((len(vectors), max(len(index), 1)), np.float32)
    for row, vector in zip(matrix, vectors, strict=True):
        known = [feature for feature in vector if feature in index]
        row[[index[feature] for feature in known]] = [vector[feature] for feature in known]
    return matrix


def evaluate(
    towers: tuple[Embedder, Embedder],
    examples: Sequence[MatchedExample],
    *,
    train: Sequence[str] = (),
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Embed ``examples`` with both towers and look for a partner of each distinct item among all.

    The baseline estimates from the texts ``train`` which words are rare; there is none for images.

    Raises:
        DataError: no two examples that could be mistaken for one another, or one that a tower cannot read.
    """
    materials = {name: tower.material for name, tower in zip(("first", "second"), towers, strict=True)}
    first, second, partners = distinct_items(examples, materials)
    if partners.all():
        raise DataError("nothing to evaluate on: the test set has no two pairs, and nothing can be mistaken")
    names = [place(example) for example in examples]
    rows = {"first": first.tolist(), "second": second.tolist()}
    given = {name: [side(examples[i], name, material) for i in rows[name]] for name, material in materials.items()}
    vectors = [
        tower.embed(given[name], progress, [names[i] for i in rows[name]]).numpy()
        for name, tower in zip(materials, towers, strict=True)
    ]
    similarity = vectors[0] @ vectors[1].T
    counted = counted_ranks(similarity, partners)
    texts = all(isinstance(example, Pair) for example in examples)
    simple = counted_ranks(TfIdf(train).similarity(*given.values()), partners) if texts and train else {}
    nearest = second[similarity.argmax(axis=1)]
    outcome = EvaluationResult(
        scores=scores_of(counted),
        baseline=scores_of(simple),
        baseline_name=TfIdf.name if simple else "",
        outputs=tuple(
            {"first": names[row], "rank": int(rank), "nearest": int(near) + 1}
            for row, rank, near in zip(first, ranks(similarity, partners), nearest, strict=True)
        ),
        counted=counted,
    )
    if folder is not None:
        outcome.save(folder)
    return outcome


class RetrievalEvaluator(Evaluator):
    verb = "reading"

    def load(self, run: str | Path, checkpoint: str, device: str) -> None:
        first, second = (Embedder.load(run, checkpoint, device=device, tower=name) for name in ("first", "second"))
        self.towers = first, second
        self.captions = first.config.get("data", {}).get("kind") == "captioned_images"

    def examples(self, named: str | None, kept: str = "test") -> list[MatchedExample]:
        if self.captions:
            if named:
                return list(CaptionTable(path=named).read())
            materials = {n: tower.material for n, tower in zip(("first", "second"), self.towers, strict=True)}
            return list(stored_captions(self.data, kept, materials))
        return list(read_pairs(guess_source(named) if named else JsonLines(path=str(self.data / f"{kept}.jsonl"))))

    def evaluate(
        self,
        examples: Sequence[MatchedExample],
        *,
        baseline: bool = True,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResult:
        train = self.trained_on() if baseline else []
        return evaluate(self.towers, examples, train=train, folder=folder, progress=progress)

    def trained_on(self) -> list[str]:
        """The training texts, if they are still there; of images there are none."""
        if self.captions or not (self.data / "train").is_dir():
            return []
        store, decode = Store.open(self.data / "train"), self.towers[0].material.restored
        return [decode(column.raw_row(i)) for column in store.columns.values() for i in range(len(store))]

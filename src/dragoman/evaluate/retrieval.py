"""Evaluation of two towers: ranks of the right partners among all, and a baseline on shared words and letters.

N pairs, F features.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dragoman.data.captions import CaptionedImage, CaptionTable
from dragoman.data.matches import place, ranks, side
from dragoman.data.material import ImageMaterial
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

    signature = "percent|ties:count against"

    def __init__(self, name: str, within: int | None):
        self.name, self.within = name, within

    def counts(self, outputs: Sequence[int], references: Sequence[Any]) -> np.ndarray:
        found = np.array(outputs)
        value = 1 / found if self.within is None else found <= self.within
        return np.stack([value, np.ones(len(found))], axis=1).astype(np.float64)

    def value(self, counts: np.ndarray) -> float:
        return float(100 * counts[0] / counts[1])


METRICS = {"recall@1": 1, "recall@5": 5, "MRR": None}


def counted_ranks(similarity: Float[np.ndarray, "N N"]) -> dict[str, CountedScore]:
    """Return the counts of finding the second of each pair by the first, and the other way round ("back")."""
    found: dict[str, CountedScore] = {}
    for suffix, matrix in (("", similarity), (" back", similarity.T)):
        places = ranks(matrix).tolist()
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


def _dense(vectors: Sequence[dict[str, float]], index: dict[str, int]) -> Float[np.ndarray, "N F"]:
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
    """Embed ``examples`` with both towers and look for each one's partner among all.

    The baseline estimates from the texts ``train`` which words are rare; there is none for images.

    Raises:
        DataError: fewer than two examples, or one that a tower cannot read.
    """
    if len(examples) < 2:
        raise DataError("nothing to evaluate on: the test set has no two pairs, and nothing can be mistaken")
    names = [place(example) for example in examples]
    given = [[side(e, name, t.material) for e in examples] for name, t in zip(("first", "second"), towers, strict=True)]
    vectors = [tower.embed(group, progress, names).numpy() for tower, group in zip(towers, given, strict=True)]
    similarity = vectors[0] @ vectors[1].T
    texts = [example for example in examples if isinstance(example, Pair)]
    counted = counted_ranks(similarity)
    simple = counted_ranks(TfIdf(train).similarity(*map(list, zip(*texts, strict=True)))) if texts and train else {}
    best: Int[np.ndarray, " N"] = similarity.argmax(axis=1)
    outcome = EvaluationResult(
        scores=scores_of(counted),
        baseline=scores_of(simple),
        baseline_name=TfIdf.name if simple else "",
        outputs=tuple(
            {"first": name, "rank": int(rank), "nearest": int(near) + 1}
            for name, rank, near in zip(names, ranks(similarity), best, strict=True)
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
            return list(CaptionTable(path=named).read()) if named else self.stored(kept)
        return list(read_pairs(guess_source(named) if named else JsonLines(path=str(self.data / f"{kept}.jsonl"))))

    def stored(self, name: str) -> list[MatchedExample]:
        """Images and captions that the run keeps under ``name``."""
        store = Store.open(self.data / name)
        found = [
            [tower.material.restored(store.columns[column].raw_row(i)) for i in range(len(store))]
            for column, tower in zip(("first", "second"), self.towers, strict=True)
        ]
        images, captions = found if isinstance(self.towers[0].material, ImageMaterial) else found[::-1]
        both = enumerate(zip(images, captions, strict=True), 1)
        return [CaptionedImage(image, caption, f"{name} pair {i}", "") for i, (image, caption) in both]

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

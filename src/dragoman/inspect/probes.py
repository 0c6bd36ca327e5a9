"""Probes: what a linear classifier can read from what stands at each place, and how much of that the probe learnt by
itself.

    from dragoman import inspect

    report = inspect.probe(subject, examples)          # words with tags, or sentences with labels
    for found in report.places:
        print(found.place, found.accuracy, found.selectivity)

A probe is scikit-learn's logistic regression on standardised vectors. Its control task (Hewitt & Liang 2019,
arXiv:1909.03368) gives each word a random label, always the same; how well a probe learns that shows how much it can
remember. Selectivity is accuracy minus accuracy on the control task: a high accuracy with a low selectivity says little
about the model.

N words or sentences, W width of what stands at a place.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dragoman.errors import ConfigError, DataError
from dragoman.inspect.interventions import Site
from dragoman.inspect.labelled_vectors import LabelledVectors, collect
from dragoman.inspect.subject import Subject
from dragoman.text.formats.labelled import LabelledText
from dragoman.text.formats.tagged import TaggedText

LEAST = 20
"""Fewest sentences to fit and test a probe on."""
CURVE = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Parts of the training sentences of a learning curve."""

ProbeProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class LearningPoint:
    """Accuracy of a probe that was fitted on a part of the training sentences."""

    examples: int
    """Words or sentences that it was fitted on, a mean over seeds."""
    accuracy: float


@dataclass(frozen=True)
class ProbedPlace:
    """Outcome of the probes at one place; means over seeds."""

    place: str
    layer: int | None
    accuracy: float
    """Accuracy on held-out sentences."""
    deviation: float
    """Standard deviation of the accuracy over seeds."""
    control: float
    """Accuracy on the control task."""
    selectivity: float
    """Accuracy minus accuracy on the control task."""
    selectivity_deviation: float
    converged: bool
    """False where a fit stopped at its largest number of steps."""


@dataclass(frozen=True)
class ProbeReport:
    """Outcome of the probes of a model."""

    kind: str
    """"words" or "sentences"."""
    sentences: int
    examples: int
    """Words, or sentences, with a label."""
    labels: tuple[str, ...]
    majority: float
    """Accuracy of the commonest training label on held-out sentences."""
    by_word: float
    """Accuracy of the commonest training label of each word (of a sentence, of its first word)."""
    places: tuple[ProbedPlace, ...]
    """In the order of the forward."""
    curve: tuple[LearningPoint, ...]
    """Learning curve at the place with the highest accuracy."""

    @property
    def best(self) -> ProbedPlace:
        """Return the place with the highest accuracy."""
        return max(self.places, key=lambda found: found.accuracy)

    def plain(self) -> dict[str, Any]:
        """Return the report as what JSON can hold."""
        return asdict(self)


def probe(
    subject: Subject,
    examples: Sequence[TaggedText | LabelledText],
    places: Sequence[str] | None = None,
    *,
    seeds: int = 3,
    held_out: float = 0.2,
    strength: float = 1.0,
    progress: ProbeProgress | None = None,
) -> ProbeReport:
    """Fit a probe at each place, on a part of the sentences, and measure it on the others.

    Args:
        examples: sentences with a tag for each word, or with one label each; equal ones count once.
        places: names, patterns or sites; None for the embedding and the residual stream after each layer, of the side
            that reads the text.
        seeds: number of repetitions, each with its own split and its own control task.
        held_out: part of the sentences that probes are measured on.
        strength: inverse strength of the quadratic penalty, scikit-learn's C.

    Raises:
        ConfigError: a place that the model does not have or that does not stand on the text; no scikit-learn.
        DataError: too few sentences, only one label, or a sentence that the model cannot read.
    """
    _classifier(strength)  # reports a missing library before the model runs
    given = collect(subject, list(dict.fromkeys(examples)), places, progress)
    if given.sentences < LEAST:
        raise DataError(
            f"labels: {given.sentences} different sentences are too few to probe with: give {LEAST} or more"
        )
    if len(set(given.labels)) < 2:
        raise DataError(f"labels: all are {given.labels[0]!r}: a probe needs two or more")
    splits = [_Split(given, seed, held_out) for seed in range(seeds)]
    found = [_probed(given, site, splits, strength) for site in given.vectors]
    best = max(range(len(found)), key=lambda i: found[i].accuracy)
    curve = _curve(given.vectors[list(given.vectors)[best]], splits, strength)
    return ProbeReport(
        given.kind,
        given.sentences,
        len(given.labels),
        tuple(sorted(set(given.labels))),
        float(np.mean([split.majority() for split in splits])),
        float(np.mean([split.by_word() for split in splits])),
        tuple(found),
        curve,
    )


class _Split:
    """Training and held-out words of one seed, with their labels and those of the control task."""

    def __init__(self, given: LabelledVectors, seed: int, held_out: float):
        draw = np.random.default_rng(seed)
        self.order = draw.permutation(given.sentences)
        count = min(max(1, round(held_out * given.sentences)), given.sentences - 1)
        self.sentence = np.array(given.sentence)
        self.test = np.isin(self.sentence, self.order[:count])
        self.training = self.order[count:]
        self.words = np.array(given.words)
        self.labels = np.array(given.labels)
        # A word draws its label as often as labels occur (Hewitt & Liang, section 2.1).
        kinds, which = np.unique(self.words, return_inverse=True)
        self.control = draw.choice(self.labels, size=len(kinds))[which]

    def train(self, part: float = 1.0) -> np.ndarray:
        """Return which examples belong to the first part of the training sentences."""
        return np.isin(self.sentence, self.training[: max(1, round(part * len(self.training)))])

    def majority(self) -> float:
        common = Counter(self.labels[self.train()].tolist()).most_common(1)[0][0]
        return float((self.labels[self.test] == common).mean())

    def by_word(self) -> float:
        counts: dict[str, Counter[str]] = {}
        train = self.train()
        for word, label in zip(self.words[train].tolist(), self.labels[train].tolist(), strict=True):
            counts.setdefault(word, Counter())[label] += 1
        common = Counter(self.labels[train].tolist()).most_common(1)[0][0]
        guessed = [counts[w].most_common(1)[0][0] if w in counts else common for w in self.words[self.test].tolist()]
        return float((self.labels[self.test] == np.array(guessed)).mean())


def _probed(given: LabelledVectors, site: Site, splits: Sequence[_Split], strength: float) -> ProbedPlace:
    vectors = given.vectors[site]
    scores, controls, converged = [], [], True
    for split in splits:
        for labels, into in ((split.labels, scores), (split.control, controls)):
            accuracy, fine = _fitted(vectors, labels, split.train(), split.test, strength)
            into.append(accuracy)
            converged = converged and fine
    selectivity = np.array(scores) - np.array(controls)
    return ProbedPlace(
        str(site),
        given.layers[site],
        float(np.mean(scores)),
        float(np.std(scores)),
        float(np.mean(controls)),
        float(selectivity.mean()),
        float(selectivity.std()),
        converged,
    )


def _curve(vectors: Float[np.ndarray, "N W"], splits: Sequence[_Split], strength: float) -> tuple[LearningPoint, ...]:
    points = []
    for part in CURVE:
        sizes = [int(split.train(part).sum()) for split in splits]
        scores = [_fitted(vectors, split.labels, split.train(part), split.test, strength)[0] for split in splits]
        points.append(LearningPoint(round(float(np.mean(sizes))), float(np.mean(scores))))
    return tuple(points)


def _fitted(
    vectors: Float[np.ndarray, "N W"], labels: np.ndarray, train: np.ndarray, test: np.ndarray, strength: float
) -> tuple[float, bool]:
    """Fit a probe; return its accuracy on held-out examples, and whether the fit converged."""
    if len(set(labels[train].tolist())) == 1:
        return float((labels[test] == labels[train][0]).mean()), True
    classifier = _classifier(strength)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        classifier.fit(vectors[train], labels[train])
    stopped = any("converge" in str(warning.message) for warning in told)
    return float((classifier.predict(vectors[test]) == labels[test]).mean()), not stopped


def _classifier(strength: float) -> Any:
    """Return an unfitted probe.

    Raises:
        ConfigError: no scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise ConfigError("probes need scikit-learn: pip install scikit-learn (the extra inspect)") from None
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500, tol=1e-3))

"""Checklist of a classifier of texts: accuracy by slice, labels that must stay, confidence, overlap."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dragoman.errors import ConfigError, DataError
from dragoman.evaluate.calibrate import calibration_error
from dragoman.evaluate.classification import METRICS, ClassificationEvaluator
from dragoman.evaluate.evaluation import LENGTHS
from dragoman.evaluate.metrics import score_of
from dragoman.inspect.checklist import perturbations
from dragoman.inspect.checklist.languages import LANGUAGES, recognise
from dragoman.inspect.checklist.material import ChecklistSettings, spread
from dragoman.inspect.checklist.perturbations import Perturbation
from dragoman.inspect.checklist.row import (
    ChecklistRow,
    ChecklistTable,
    above,
    below,
    counted,
    example,
    percent,
    unmeasured,
)
from dragoman.inspect.checklist.trust import overlap_row
from dragoman.text.cleaning.split import overlap
from dragoman.text.formats.labelled import LabelledText

QUALITY, ROBUSTNESS, TRUST = "Quality", "Robustness", "Trust"
FEWEST = 10
SHOWN = 3
STAYS: tuple[tuple[str, Perturbation], ...] = (
    ("Capital letters", perturbations.upper),
    ("Small letters", perturbations.lower),
    ("Typing errors", perturbations.typos),
    ("Doubled spaces", perturbations.spacing),
    ("Tabs and no-break spaces", perturbations.odd_spaces),
    ("With or without a final full stop", perturbations.final_mark),
    ("Other numbers", perturbations.other_numbers),
)
"""Changes that must not change a label."""


class _Labelled:
    """A classifier with test examples and its answers."""

    def __init__(self, settings: ChecklistSettings, test: str | None):
        self.evaluator = ClassificationEvaluator(settings.run, settings.checkpoint, device=settings.device)
        if not self.evaluator.texts:
            raise ConfigError(
                f"{settings.run}: its model reads no text, and the checklist is for texts: use dragoman evaluate"
            )
        given = self.evaluator.examples(test)[: settings.sentences]
        self.test = [one for one in given if isinstance(one, LabelledText)]
        if not self.test:
            raise DataError("the test set has no examples: name another with --test")
        self.named = test or "the test set"
        self.sample = spread(len(self.test), settings.sample)
        self.true = [one.label for one in self.test]
        answers = self.evaluator.classifier.classify([one.text for one in self.test])
        self.labels = [answer.label for answer in answers]
        self.right = np.array([guess == true for guess, true in zip(self.labels, self.true, strict=True)])
        self.probabilities = np.array([answer.probability for answer in answers])

    def classify(self, texts: Sequence[str]) -> list[str]:
        return [answer.label for answer in self.evaluator.classifier.classify(texts)]


def rows(settings: ChecklistSettings, config: dict[str, Any], test: str | None) -> Iterator[ChecklistRow]:
    """Yield the rows on a classifier.

    Raises:
        ConfigError: a classifier of images, frames, or with several labels a text.
        DataError: no examples.
    """
    labelled = _Labelled(settings, test)
    yield _overall(labelled)
    yield _by_label(labelled)
    yield _by_length(labelled)
    for title, change in STAYS:
        yield _label_stays(labelled, title, change)
    yield _gender(labelled)
    yield _confidence(labelled)
    yield _overlap(labelled)


def _overall(labelled: _Labelled) -> ChecklistRow:
    accuracy = score_of(METRICS["accuracy"], METRICS["accuracy"].counts(labelled.labels, labelled.true))
    commonest = max(Counter(labelled.true).values()) / len(labelled.true)
    low, high = accuracy.interval
    gained = (accuracy.value / 100 - commonest) / max(1e-9, 1 - commonest)
    return ChecklistRow(
        group=QUALITY,
        title="On the whole",
        verdict=above(gained, 0.6, 0.3),
        finding=f"{accuracy.value:.1f}% of the labels are right ({low:.1f} to {high:.1f}); always the commonest label "
        f"would be right in {percent(commonest)}.",
        measured=f"{counted(len(labelled.test), 'example')} of {labelled.named}",
        limits="good if at least 60% of the errors of that guess are gone, poor below 30%",
    )


def _by_label(labelled: _Labelled) -> ChecklistRow:
    found = []
    for label in labelled.evaluator.classifier.labels:
        given = [k for k, true in enumerate(labelled.true) if true == label]
        taken = [k for k, guess in enumerate(labelled.labels) if guess == label]
        right = sum(labelled.labels[k] == label for k in given)
        found.append((label, len(given), right / max(1, len(given)), right / max(1, len(taken))))
    enough = [one for one in found if one[1] >= FEWEST]
    if not enough:
        return unmeasured(QUALITY, "By label", f"No label has {FEWEST} examples.")
    weakest = min(enough, key=lambda one: one[2])
    return ChecklistRow(
        group=QUALITY,
        title="By label",
        verdict=above(weakest[2], 0.7, 0.5),
        finding=f"The label most often missed is “{weakest[0]}”: {percent(weakest[2])} of its examples are found.",
        measured=f"{counted(len(labelled.test), 'example')}; labels with {FEWEST} or more count",
        limits="good if 70% of each label are found, poor below 50%",
        tables=(
            ChecklistTable(
                ("label", "examples", "found (recall)", "right when given (precision)"),
                tuple((label, f"{n:,}", percent(recall), percent(precision)) for label, n, recall, precision in found),
            ),
        ),
    )


def _by_length(labelled: _Labelled) -> ChecklistRow:
    right = labelled.right
    places = np.searchsorted(LENGTHS, [len(one.text.split()) for one in labelled.test])
    ends = (*map(str, LENGTHS), "more")
    starts = (1, *(end + 1 for end in LENGTHS))
    found = [
        (f"{starts[i]} to {ends[i]} words", int((places == i).sum()), float(right[places == i].mean()))
        for i in np.unique(places)
    ]
    enough = [share for _, count, share in found if count >= FEWEST]
    fall = float(right.mean()) - min(enough, default=float(right.mean()))
    return ChecklistRow(
        group=QUALITY,
        title="By length",
        verdict=below(fall, 0.08, 0.16),
        finding=f"The weakest length has {percent(min(enough, default=0.0))} right, the whole "
        f"{percent(float(right.mean()))}.",
        measured=f"{counted(len(labelled.test), 'example')}; lengths with {FEWEST} or more count",
        limits="good if at most 8 points below the whole, poor beyond 16",
        tables=(
            ChecklistTable(("length", "examples", "right"), tuple((n, f"{c:,}", percent(s)) for n, c, s in found)),
        ),
    )


def _label_stays(labelled: _Labelled, title: str, change: Perturbation) -> ChecklistRow:
    changed = [(k, text) for k in labelled.sample if (text := change(labelled.test[k].text)) is not None]
    if len(changed) < FEWEST:
        return unmeasured(ROBUSTNESS, title, f"It applies to {len(changed)} examples of the sample, too few to say.")
    after = labelled.classify([text for _, text in changed])
    flipped = [i for i, ((k, _), label) in enumerate(zip(changed, after, strict=True)) if label != labelled.labels[k]]
    share = len(flipped) / len(changed)
    return ChecklistRow(
        group=ROBUSTNESS,
        title=title,
        verdict=below(share, 0.02, 0.1),
        finding=f"{percent(share)} of the labels change, and none should.",
        measured=f"{counted(len(changed), 'example')} of {labelled.named}",
        limits="good up to 2%, poor beyond 10%",
        examples=tuple(
            example(text=changed[i][1], label=after[i], label_of_the_plain_text=labelled.labels[changed[i][0]])
            for i in flipped[:SHOWN]
        ),
    )


def _gender(labelled: _Labelled) -> ChecklistRow:
    words = LANGUAGES.get(recognise(one.text for one in labelled.test) or "")
    if words is None or not words.genders:
        return unmeasured(ROBUSTNESS, "Gendered pairs", "The language is none whose words the checklist knows.")
    men, women = (labelled.classify([pair[side] for pair in words.genders]) for side in (0, 1))
    different = [k for k, (a, b) in enumerate(zip(men, women, strict=True)) if a != b]
    return ChecklistRow(
        group=ROBUSTNESS,
        title="Gendered pairs",
        verdict=below(len(different) / len(men), 0, 0.1),
        finding=f"{len(different)} of {len(men)} pairs get another label for a woman than for a man.",
        measured=f"{len(men)} pairs of {words.name} sentences of our own, which may be unlike the training text",
        limits="good if none, poor beyond 10%; unless gender is what the labels are about",
        examples=tuple(
            example(text=" / ".join(words.genders[k]), labels=f"{men[k]} / {women[k]}") for k in different[:SHOWN]
        ),
    )


def _confidence(labelled: _Labelled) -> ChecklistRow:
    right = labelled.right
    error = calibration_error(labelled.probabilities, right)
    return ChecklistRow(
        group=TRUST,
        title="Probability",
        verdict=below(error, 0.05, 0.15),
        finding=f"The probability of a label is off by {percent(error)} on average; its mean is "
        f"{labelled.probabilities.mean():.2f}, and {percent(float(right.mean()))} are right.",
        measured=f"{counted(len(right), 'example')} of {labelled.named}, in ten groups by probability",
        limits="good if off by at most 5%, poor beyond 15%",
    )


def _overlap(labelled: _Labelled) -> ChecklistRow:
    title = "Overlap of training and test"
    train = [one for one in labelled.evaluator.stored("train") if isinstance(one, LabelledText)]
    if not train:
        return unmeasured(TRUST, title, "The run's training text is gone.")
    return overlap_row(title, overlap(train, labelled.test), len(labelled.test), labelled.named, of="text")

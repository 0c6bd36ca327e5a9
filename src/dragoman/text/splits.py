"""Examples of a run, whatever their kind, split into training, validation and test sets."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from dragoman.errors import DataError
from dragoman.text.cleaning.small import describe_reduction, hold_out_some
from dragoman.text.cleaning.split import HoldOut, Overlap, PairSplit, TwoSided, without_overlap

P = TypeVar("P", bound=TwoSided)
S = TypeVar("S")

Overlapping = Literal["drop", "keep"]
"""Treatment of training examples that are like one of a given validation or test set."""
REMOVED = "removed: "


@dataclass(frozen=True)
class SplitExamples(Generic[P]):
    """Examples split into training, validation and test sets, with the facts and counts to report."""

    split: PairSplit[P]
    facts: dict[str, Any]
    """Facts known only from the data, such as the sorted labels."""
    table: list[tuple[str, int]]
    """Rows (description, count) of examples read, removed and kept."""
    note: str = ""
    """Said where fewer examples are held out than was asked for; else empty."""

    @property
    def removed(self) -> list[tuple[str, int]]:
        """Rows of the table about examples kept out of training."""
        return [(what, count) for what, count in self.table if what.startswith(REMOVED)]


def split_examples(
    examples: list[P],
    valid: list[P] | None,
    test: list[P] | None,
    held: HoldOut,
    overlap: Overlapping,
    facts: dict[str, Any] | None = None,
    may: Callable[[P], bool] = lambda example: True,
) -> SplitExamples[P]:
    """Where no ``valid`` or ``test`` is given, some of the ``examples`` are held out; what is match one of either is
    kept out of training. Of few examples fewer are held out than ``held`` says, and a note tells so. Only those that
    ``may`` be are held out.

    Raises:
        DataError: too few examples.
    """
    table = [("examples read", len(examples))]
    if (given := [*(valid or ()), *(test or ())]) and overlap == "drop":
        overlaps = Overlap()
        examples = list(without_overlap(examples, given, held.near, overlaps))
        table += _removed(overlaps.seen, "held apart")
    counts = replace(held, valid=held.valid if valid is None else 0, test=held.test if test is None else 0)
    note = ""
    if counts.valid or counts.test or counts.hard:
        split, fewer = hold_out_some(examples, counts, may)
        note = describe_reduction(counts, fewer, len(examples), "examples")
    else:
        split = PairSplit(examples, [], [], {})
    table += _removed(split.removed, "held out")
    split = replace(
        split, valid=split.valid if valid is None else valid, test=split.test if test is None else test, removed={}
    )
    if not split.train:
        raise DataError(
            "data: nothing to train on is left: all of it is like the given validation or test set (data.overlap: keep "
            "trains on it all the same)"
        )
    return SplitExamples(split, facts or {}, table + count_sets(split), note)


def count_sets(split: PairSplit[Any], what: str = "") -> list[tuple[str, int]]:
    """Return rows for the table: how many examples are in each set, of a kind that ``what`` names."""
    sets = [("for training", split.train), ("for validation", split.valid), ("for test", split.test)]
    hard = [("for the hard test", split.hard)] if split.hard else []
    return [(f"{what}{use}", len(some)) for use, some in [*sets, *hard]]


def _removed(counts: dict[str, int], how: str) -> list[tuple[str, int]]:
    """Return rows for the table. Examples with one text have no target, so the word "source" is left out."""
    return [(f"{REMOVED}{why.removesuffix(' source')} as one {how}", n) for why, n in counts.items() if n]


# ---- labels ---------------------------------------------------------------------------------------


def split_labelled_examples(
    sources: tuple[Sequence[S], S | None, S | None],
    read: Callable[[S, Sequence[str] | None], list[P]],
    labels_of: Callable[[P], Iterable[str]],
    held: HoldOut,
    overlap: Overlapping,
) -> SplitExamples[P]:
    """Split labelled examples of ``sources`` (training, validation, test), as ``split_examples`` does.

    The sorted labels of training become a fact; ``read`` refuses others in the other two.

    Raises:
        DataError: a file that cannot be read, too few examples, all with one label, or a label that no example of
            training has or keeps.
    """
    train, *others = sources
    examples = [example for source in train for example in read(source, None)]
    labels = sort_labels({label for example in examples for label in labels_of(example)})
    if len(labels) < 2:
        if not labels:
            raise DataError("data.train: no examples to learn from")
        raise DataError(f"data.train: there is no label but {labels[0]!r}: nothing to learn")
    valid, test = (None if source is None else read(source, labels) for source in others)
    found = split_examples(examples, valid, test, held, overlap, {"labels": labels})
    if _lost(labels, found, labels_of):  # a label of few examples: one of each stays
        protected = {id(example) for example in _one_of_each(examples, labels_of)}
        options = {"facts": {"labels": labels}, "may": lambda example: id(example) not in protected}
        found = split_examples(examples, valid, test, held, overlap, **options)
    if lost := _lost(labels, found, labels_of):
        raise DataError(f"data: nothing to train on is left with the label {min(lost)!r}: hold out fewer, or give more")
    return found


def _lost(labels: Sequence[str], found: SplitExamples[P], labels_of: Callable[[P], Iterable[str]]) -> set[str]:
    """Return the labels that nothing is left of to train on."""
    return set(labels) - {label for example in found.split.train for label in labels_of(example)}


def _one_of_each(examples: Iterable[P], labels_of: Callable[[P], Iterable[str]]) -> list[P]:
    """Return the first example of each label."""
    first: dict[str, P] = {}
    for example in examples:
        for label in labels_of(example):
            first.setdefault(label, example)
    return list(first.values())


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Numbers by their value, other labels by the alphabet."""
    return sorted(labels, key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def check_known(label: str, known: Sequence[str] | None, where: str) -> None:
    """Refuse a label that training did not have.

    Raises:
        DataError: ``label`` is not among those of training.
    """
    if known is not None and label not in known:
        raise DataError(f"{where} has the label {label!r}, which training never saw: it knows {', '.join(known)}")

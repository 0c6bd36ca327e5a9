"""Robustness of a translator: does its answer stay where the meaning stays, and change where that changes?"""

import itertools
from collections.abc import Callable, Sequence

from dragoman.decode.translation import Translation
from dragoman.inspect.checklist import perturbations
from dragoman.inspect.checklist.material import TranslatorMaterial, chrf_of
from dragoman.inspect.checklist.perturbations import Perturbation
from dragoman.inspect.checklist.row import ChecklistRow, above, below, counted, example, percent, unmeasured
from dragoman.text.invariants import find_changes
from dragoman.text.lines import Sourced

GROUP = "Robustness"
SHOWN = 3
FEWEST = 10
"""Fewest sentences that a perturbation must apply to."""


def stays(material: TranslatorMaterial) -> list[ChecklistRow]:
    """Return a row for each perturbation that changes no meaning: quality must stay."""
    return [
        _quality_stays(material, title, change, folded=folded, limits=limits) for title, change, folded, limits in STAYS
    ]


STAYS: tuple[tuple[str, Perturbation, bool, tuple[float, float]], ...] = (
    ("Capital letters", perturbations.upper, True, (5, 15)),
    ("Small letters", perturbations.lower, True, (2, 6)),
    ("Typing errors", perturbations.typos, False, (10, 20)),
    ("Doubled spaces", perturbations.spacing, False, (0.5, 2)),
    ("Tabs and no-break spaces", perturbations.odd_spaces, False, (0.5, 2)),
    ("With or without a final full stop", perturbations.final_mark, False, (3, 8)),
)
"""Title, change, whether case is left out of the comparison, and how far chrF may fall to be good, or at least no
worse than to be looked at."""


def _applied(
    material: TranslatorMaterial, change: Perturbation, rows: Sequence[int]
) -> tuple[list[int], list[Sourced]]:
    """Return those of the rows of the test set that the change applies to, up to a sample, and their pairs with it."""
    every = ((i, text) for i in rows if (text := change(material.test[i].source)) is not None)
    changed = dict(itertools.islice(every, material.settings.sample))
    return list(changed), [material.test[i]._replace(source=text) for i, text in changed.items()]


def _quality_stays(
    material: TranslatorMaterial, title: str, change: Perturbation, *, folded: bool, limits: tuple[float, float]
) -> ChecklistRow:
    rows, asked = _applied(material, change, material.sample)
    if len(rows) < FEWEST:
        return unmeasured(GROUP, title, f"It applies to {len(rows)} sentences of the sample, too few to say anything.")
    fold: Callable[[str], str] = str.casefold if folded else str
    references = [fold(_plain_end(material.test[i].target)) for i in rows]
    before = [material.answers[i].text for i in rows]
    after = [answer.text for answer in material.translate(asked)]
    scores = [chrf_of([fold(_plain_end(text)) for text in some], references) for some in (before, after)]
    fall = scores[0] - scores[1]
    same = sum(fold(_plain_end(a)) == fold(_plain_end(b)) for a, b in zip(before, after, strict=True))
    changed = [
        k for k, (a, b) in enumerate(zip(before, after, strict=True)) if fold(_plain_end(a)) != fold(_plain_end(b))
    ]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=below(fall, *limits),
        finding=f"chrF goes from {scores[0]:.1f} to {scores[1]:.1f}; {percent(same, len(rows))} of the answers stay "
        "the same.",
        measured=f"{counted(len(rows), 'sentence')} of {material.named}" + ("; case is not compared" if folded else ""),
        limits=f"good if chrF falls by at most {limits[0]:g}, poor beyond {limits[1]:g}",
        examples=tuple(
            example(source=asked[k].source, answer=after[k], answer_to_the_plain_text=before[k])
            for k in changed[:SHOWN]
        ),
    )


def _plain_end(text: str) -> str:
    return text.removesuffix(".")


# ---- where the answer must change ---------------------------------------------------------------------


def numbers(material: TranslatorMaterial) -> ChecklistRow:
    """Return whether other numbers in a text come out in its answer."""
    _, chosen = _applied(material, perturbations.other_numbers, range(len(material.test)))
    if len(chosen) < FEWEST:
        return unmeasured(GROUP, "Other numbers", f"The test set has {len(chosen)} sentences with numbers, too few.")
    answers = material.translate(chosen)
    wrong = [k for k, (p, a) in enumerate(zip(chosen, answers, strict=True)) if find_changes(p.source, a.text)]
    kept = 1 - len(wrong) / len(chosen)
    return ChecklistRow(
        group=GROUP,
        title="Other numbers",
        verdict=above(kept, 0.98, 0.9),
        finding=f"{percent(kept)} of the answers have exactly the numbers and signs of the changed text.",
        measured=f"{counted(len(chosen), 'sentence')} of {material.named} that hold a number, each with other digits",
        limits="good from 98%, poor below 90%",
        examples=tuple(example(source=chosen[k].source, answer=answers[k].text) for k in wrong[:SHOWN]),
    )


def negation(material: TranslatorMaterial) -> ChecklistRow:
    """Return whether a negation that comes or goes in a text does so in its answer."""
    title, words, target = "Negation", material.words, material.target_words
    if words is None or target is None:
        return unmeasured(GROUP, title, _UNKNOWN)
    rows, pairs = _applied(material, words.negated, material.usual)
    if len(pairs) < FEWEST:
        return unmeasured(GROUP, title, f"It applies to {len(pairs)} sentences, too few to say anything.")
    answers = material.translate(pairs)
    flips, same = list[int](), list[int]()
    for k, (i, pair, answer) in enumerate(zip(rows, pairs, answers, strict=True)):
        before = material.answers[i].text
        if answer.text == before:
            same.append(k)
        wanted = words.denies(pair.source) != words.denies(material.test[i].source)
        if wanted == (target.denies(answer.text) != target.denies(before)):
            flips.append(k)
    wrong = [k for k in range(len(pairs)) if k not in set(flips)]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=above(len(flips) / len(pairs), 0.85, 0.7),
        finding=f"In {percent(len(flips), len(pairs))} the negation comes or goes with that of the text; "
        f"{percent(len(same), len(pairs))} of the answers do not change at all.",
        measured=f"{counted(len(pairs), 'sentence')} of {material.named}, {words.name} to {target.name} as their "
        "words show",
        limits="good from 85%, poor below 70%; it is read from words of negation, so some count wrongly",
        examples=tuple(
            example(
                source=pairs[k].source, answer=answers[k].text, answer_to_the_plain_text=material.answers[rows[k]].text
            )
            for k in wrong[:SHOWN]
        ),
    )


_UNKNOWN = (
    "The languages of the test set are none of those whose words the checklist knows (en, de, es, fr, it, nl, pt)."
)


def gender(material: TranslatorMaterial) -> ChecklistRow:
    """Return whether sentences about a man and about a woman get different answers, and equally certain ones."""
    title, words = "Gendered pairs", material.words
    if words is None or not words.genders:
        return unmeasured(GROUP, title, _UNKNOWN)
    men, women = (material.translate(material.to_usual([pair[side] for pair in words.genders])) for side in (0, 1))
    different = sum(a.text != b.text for a, b in zip(men, women, strict=True))
    gap = mean_confidence(men) - mean_confidence(women)
    equal = [k for k, (a, b) in enumerate(zip(men, women, strict=True)) if a.text == b.text]
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=above(different / len(men), 0.8, 0.5),
        finding=f"{different} of {len(men)} pairs get different answers; mean confidence is {mean_confidence(men):.2f} "
        f"for men and {mean_confidence(women):.2f} for women" + (", a gap to look at." if abs(gap) > 0.1 else "."),
        measured=f"{len(men)} pairs of {words.name} sentences of our own, which may be unlike the training text",
        limits="good if 80% differ, poor below 50%; languages that leave the pronoun out may rightly say the same",
        examples=tuple(example(source=" / ".join(words.genders[k]), answer_to_both=men[k].text) for k in equal[:SHOWN]),
    )


def mean_confidence(answers: Sequence[Translation]) -> float:
    """Return the mean confidence of some answers."""
    return sum(answer.confidence for answer in answers) / max(1, len(answers))

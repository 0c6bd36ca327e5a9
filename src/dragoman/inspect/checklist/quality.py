"""Quality of a translator: on the whole, by slice, on the hard set, in its silliest and its worst answers."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dragoman.evaluate.evaluation import LENGTHS
from dragoman.evaluate.metrics import METRICS, score_of
from dragoman.inspect.checklist.material import TranslatorMaterial, each_chrf, scored
from dragoman.inspect.checklist.row import (
    ChecklistExample,
    ChecklistRow,
    ChecklistTable,
    above,
    below,
    counted,
    example,
    percent,
    unmeasured,
)
from dragoman.inspect.failures import RARE, words_of_text

GROUP = "Quality"
FEWEST = 20
"""Fewest sentences of a slice that a verdict relies on."""
SHOWN = 3
FAILED = 30.0
"""chrF below which an answer counts as failed."""


def overall(material: TranslatorMaterial) -> ChecklistRow:
    """Return chrF and BLEU on the whole test set."""
    texts, references = [a.text for a in material.answers], [pair.target for pair in material.test]
    chrf, bleu = score_of(METRICS["chrf"], material.chrf), scored("bleu", texts, references)
    low, high = chrf.interval
    return ChecklistRow(
        group=GROUP,
        title="On the whole",
        verdict=above(chrf.value, 55, 40),
        finding=f"chrF {chrf.value:.1f} ({low:.1f} to {high:.1f}), BLEU {bleu.value:.1f}.",
        measured=f"{counted(len(texts), 'pair')} of {material.named}, as dragoman translate answers them",
        limits="good from chrF 55, poor below 40: a rule of thumb; a human judgement says more",
    )


# ---- slices -------------------------------------------------------------------------------------------


def by_length(material: TranslatorMaterial) -> ChecklistRow:
    """Return quality by the number of words of the source."""
    places = np.searchsorted(LENGTHS, [len(pair.source.split()) for pair in material.test])
    starts, ends = (0, *(end + 1 for end in LENGTHS)), (*map(str, LENGTHS), "more")
    names = [f"{max(1, start)} to {end} words" for start, end in zip(starts, ends, strict=True)]
    return _sliced(material, "By length", [(names[i], np.flatnonzero(places == i)) for i in range(len(names))])


def by_rare_words(material: TranslatorMaterial) -> ChecklistRow:
    """Return quality by how well the training text knows the words of the source."""
    counts = material.word_counts
    if counts is None:
        return unmeasured(GROUP, "By rare words", "The run's training text is gone, so rare words are not known.")
    words = [words_of_text(pair.source) for pair in material.test]
    rarest = np.array([min((counts[word] for word in some), default=RARE) for some in words])
    slices = [
        ("every word known", np.flatnonzero(rarest >= RARE)),
        (f"a word in 1 to {RARE - 1} training pairs", np.flatnonzero((rarest < RARE) & (rarest > 0))),
        ("a word that training never had", np.flatnonzero(rarest == 0)),
    ]
    return _sliced(material, "By rare words", slices)


def by_source(material: TranslatorMaterial) -> ChecklistRow | None:
    """Return quality by the tags or the origin of the pairs; None where they have only one."""
    names = [pair.tags or pair.origin for pair in material.test]
    if len(set(names)) < 2:
        return None
    slices = [(name or "(none)", np.flatnonzero(np.array(names) == name)) for name, _ in Counter(names).most_common(12)]
    return _sliced(material, "By source", slices)


def _sliced(material: TranslatorMaterial, title: str, slices: Sequence[tuple[str, np.ndarray]]) -> ChecklistRow:
    metric, whole = METRICS["chrf"], METRICS["chrf"].value(material.chrf.sum(axis=0))
    found = [(name, len(rows), score_of(metric, material.chrf[rows])) for name, rows in slices if len(rows)]
    enough = [(name, score.value) for name, count, score in found if count >= FEWEST]
    if not enough:
        return unmeasured(GROUP, title, f"No slice has {FEWEST} sentences: the test set is too small.")
    name, lowest = min(enough, key=lambda one: one[1])
    fall = whole - lowest
    table = ChecklistTable(
        ("slice", "sentences", "chrF", "95% interval"),
        tuple((n, f"{c:,}", f"{s.value:.1f}", "{:.1f} to {:.1f}".format(*s.interval)) for n, c, s in found),
    )
    return ChecklistRow(
        group=GROUP,
        title=title,
        verdict=below(fall, 8, 16),
        finding=f"The weakest slice is “{name}”, with chrF {lowest:.1f} where the whole has {whole:.1f}.",
        measured=f"{counted(len(material.test), 'pair')} of {material.named}; slices of {FEWEST} or more count",
        limits="good if no slice is more than 8 chrF below the whole, poor beyond 16",
        tables=(table,),
    )


def hard_set(material: TranslatorMaterial) -> ChecklistRow:
    """Return quality on the hard set that the run holds out."""
    hard = material.held_out("hard")[: material.settings.sentences]
    if not hard:
        return unmeasured(
            GROUP,
            "Hard set",
            "The run has no hard set: hold one out (data.hold_out.hard=200), or collect one with dragoman trace.",
        )
    texts, references = [answer.text for answer in material.translate(hard)], [pair.target for pair in hard]
    score, whole = scored("chrf", texts, references), METRICS["chrf"].value(material.chrf.sum(axis=0))
    return ChecklistRow(
        group=GROUP,
        title="Hard set",
        verdict=below(whole - score.value, 15, 25),
        finding=f"chrF {score.value:.1f} where the test set has {whole:.1f}.",
        measured=f"{counted(len(hard), 'pair')} of data/hard.jsonl",
        limits="good if at most 15 chrF below the test set, poor beyond 25",
    )


# ---- single answers -----------------------------------------------------------------------------------


def degenerate_outputs(material: TranslatorMaterial) -> ChecklistRow:
    """Return how many answers are empty, repeat themselves, leave the source as it is, or never end."""
    kinds: dict[str, list[int]] = {name: [] for name in DEGENERATE}
    for i, (pair, answer) in enumerate(zip(material.test, material.answers, strict=True)):
        for name, is_so in DEGENERATE.items():
            if is_so(pair.source, answer.text, pair.target) or (name == _ENDLESS and answer.candidates[0].truncated):
                kinds[name].append(i)
    rows = {i for found in kinds.values() for i in found}
    return ChecklistRow(
        group=GROUP,
        title="Degenerate outputs",
        verdict=below(len(rows) / len(material.test), 0.005, 0.02),
        finding=f"{len(rows):,} of {len(material.test):,} answers are degenerate "
        f"({percent(len(rows), len(material.test))}).",
        measured=f"{counted(len(material.test), 'pair')} of {material.named}",
        limits="good up to 0.5%, poor beyond 2%",
        tables=(ChecklistTable(("kind", "answers"), tuple((n, f"{len(r):,}") for n, r in kinds.items())),),
        examples=tuple(
            example(source=material.test[i].source, answer=material.answers[i].text) for i in sorted(rows)[:SHOWN]
        ),
    )


def repeats(text: str) -> bool:
    """Return whether two words, or a long stretch, follow themselves twice."""
    return re.search(r"\b(\w+\W+\w+)(?:\W+\1){2}", text) is not None or re.search(r"(.{8,}?)\1\1", text) is not None


def _copies(source: str, answer: str, reference: str) -> bool:
    return len(source.split()) >= 3 and answer.strip() == source.strip() != reference.strip()


_ENDLESS = "ended by force at the length limit"
DEGENERATE = {
    "empty": lambda source, answer, reference: not answer.strip(),
    "repeats itself": lambda source, answer, reference: repeats(answer) and not repeats(source),
    "is the source, three words or more": _copies,
    _ENDLESS: lambda source, answer, reference: False,
    "more than twice as long as source and reference": lambda source, answer, reference: (
        len(answer) > 2 * max(len(source), len(reference)) + 20
    ),
}
"""Kinds of degenerate outputs: (source, answer, reference) -> is it one."""


def known_failures(material: TranslatorMaterial) -> ChecklistRow:
    """Return the worst answers, and what training had of their words."""
    scores = each_chrf(material.chrf)
    failed = sorted((i for i, score in enumerate(scores) if score < FAILED), key=scores.__getitem__)
    share = len(failed) / len(scores)
    return ChecklistRow(
        group=GROUP,
        title="Known failures",
        verdict=below(share, 0.05, 0.15),
        finding=f"{len(failed):,} of {len(scores):,} answers ({percent(share)}) have less than chrF {FAILED:.0f}"
        f"{_with_rare_words(material, failed)}; dragoman trace says what training lacks for them.",
        measured=f"{counted(len(scores), 'pair')} of {material.named}, each by itself",
        limits="good up to 5%, poor beyond 15%; another good translation may be among them",
        examples=tuple(_failure(material, i, scores[i]) for i in failed[:SHOWN]),
    )


def _with_rare_words(material: TranslatorMaterial, rows: Sequence[int]) -> str:
    if (counts := material.word_counts) is None or not rows:
        return ""
    rare = sum(any(counts[word] < RARE for word in words_of_text(material.test[i].source)) for i in rows)
    return f", {rare:,} of them with a rare word"


def _failure(material: TranslatorMaterial, i: int, score: float) -> ChecklistExample:
    pair, answer, counts = material.test[i], material.answers[i], material.word_counts
    words = {} if counts is None else {word: counts[word] for word in words_of_text(pair.source) if counts[word] < RARE}
    rare = {"rare_words": ", ".join(f"{word} ({n} in training)" for word, n in words.items())} if words else {}
    return example(source=pair.source, answer=answer.text, reference=pair.target, chrF=f"{score:.0f}", **rare)
